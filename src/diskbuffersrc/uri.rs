//! `diskbuffer://` URIs: a path and properties, percent-encoded.
//!
//! `diskbuffer:///var/spool/cam1?stream-name=video&start=-30s&follow=true`. The path is the location; there is no host. Each
//! part of the query is a property of the element by its name.

use std::borrow::Cow;

pub const SCHEME: &str = "diskbuffer";

/// The properties that a URI can set besides the location.
pub const KEYS: [&str; 9] = [
    "stream-name",
    "start",
    "stop",
    "follow",
    "consumer",
    "lease-time",
    "ack-mode",
    "add-position-meta",
    "add-reference-timestamp-meta",
];

/// What a URI says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uri {
    pub location: String,
    /// In their order.
    pub parameters: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("\"{0}\" does not begin with diskbuffer://")]
    Scheme(String),
    #[error("a store is on this machine: write diskbuffer:///path with three slashes, not the host \"{0}\"")]
    Host(String),
    #[error("the URI has no path: write diskbuffer:///path, with the directory of the store")]
    NoPath,
    #[error("\"{0}\" is not percent-encoded UTF-8: two hexadecimal digits follow a %, and no byte is zero")]
    Encoding(String),
    #[error("\"{0}\" is nothing that a URI can set: known are {known}", known = KEYS.join(", "))]
    Unknown(String),
    #[error("\"{0}\" has no value: write {0}=value")]
    NoValue(String),
    #[error("\"{0}\" stands in the URI twice")]
    Twice(String),
}

impl Uri {
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let scheme = || UriError::Scheme(text.to_owned());
        let (head, rest) = text.split_once(':').ok_or_else(scheme)?;
        if !head.eq_ignore_ascii_case(SCHEME) {
            return Err(scheme());
        }
        let rest = rest.strip_prefix("//").ok_or_else(scheme)?;
        // A fragment says nothing about a store.
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = path.split_at(path.find('/').unwrap_or(path.len()));
        if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
            return Err(UriError::Host(host.to_owned()));
        }
        if path.is_empty() {
            return Err(UriError::NoPath);
        }
        let mut uri = Uri { location: decode(path)?, parameters: Vec::new() };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| UriError::NoValue(part.to_owned()))?;
            let (key, value) = (decode(key)?, decode(value)?);
            if !KEYS.contains(&key.as_str()) {
                return Err(UriError::Unknown(key));
            }
            if uri.parameters.iter().any(|(known, _)| *known == key) {
                return Err(UriError::Twice(key));
            }
            uri.parameters.push((key, value));
        }
        Ok(uri)
    }
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SCHEME}://{}", encode(&self.location, b"/"))?;
        for (at, (key, value)) in self.parameters.iter().enumerate() {
            let lead = if at == 0 { '?' } else { '&' };
            write!(f, "{lead}{}={}", encode(key, b""), encode(value, b":"))?;
        }
        Ok(())
    }
}

fn decode(text: &str) -> Result<String, UriError> {
    let refused = || UriError::Encoding(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>().ok_or_else(refused)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let value = digit(digits[0]).zip(digit(digits[1])).map(|(high, low)| (high * 16 + low) as u8);
        bytes.push(value.filter(|value| *value != 0).ok_or_else(refused)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

fn encode<'a>(text: &'a str, also: &[u8]) -> Cow<'a, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte);
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uri_is_a_path_and_properties() {
        let uri = Uri::parse("diskbuffer:///var/spool/cam%201?stream-name=video&start=-30s&follow=true#x").unwrap();
        assert_eq!(uri.location, "/var/spool/cam 1");
        let expected = [("stream-name", "video"), ("start", "-30s"), ("follow", "true")];
        assert!(uri.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        assert_eq!(uri.to_string(), "diskbuffer:///var/spool/cam%201?stream-name=video&start=-30s&follow=true");
        let zone = Uri::parse("DiskBuffer://localhost/a?start=2026-01-01T01:00+01:00").unwrap();
        assert_eq!(zone.parameters[0].1, "2026-01-01T01:00+01:00");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("file:///a", "begin with"),
            ("diskbuffer:/a", "begin with"),
            ("diskbuffer", "begin with"),
            ("diskbuffer://camera/a", "three slashes"),
            ("diskbuffer://", "no path"),
            ("diskbuffer://?start=1", "no path"),
            ("diskbuffer:///a%2", "percent"),
            ("diskbuffer:///a%00", "percent"),
            ("diskbuffer:///a%ff", "percent"),
            ("diskbuffer:///a?colour=red", "known are"),
            ("diskbuffer:///a?start", "no value"),
            ("diskbuffer:///a?start=1&start=2", "twice"),
        ] {
            let err = Uri::parse(text).unwrap_err();
            assert!(err.to_string().contains(part), "{text}: {err}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(path in "/[^\\x00]{0,30}", name in "[^\\x00]{1,20}", start in "[^\\x00]{1,20}") {
            let parameters = vec![("stream-name".to_owned(), name), ("start".to_owned(), start)];
            let uri = Uri { location: path, parameters };
            prop_assert_eq!(Uri::parse(&uri.to_string()), Ok(uri));
        }

        #[test]
        fn no_text_panics(text in "(diskbuffer://)?\\PC*") {
            let _ = Uri::parse(&text);
        }
    }
}
