//! The recorder's file: what a process did below a directory, and what it noted of itself, in order.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What happened. Descriptors are the process's own; paths are absolute.
#[derive(Debug, Clone)]
pub enum Entry {
    Open {
        fd: i32,
        path: String,
        create: bool,
        truncate: bool,
    },
    Close {
        fd: i32,
    },
    Dup {
        fd: i32,
        copy: i32,
    },
    Write {
        fd: i32,
        at: u64,
        data: Bytes,
    },
    Truncate {
        fd: Option<i32>,
        path: String,
        size: u64,
    },
    Allocate {
        fd: i32,
        end: u64,
        keep_size: bool,
    },
    SyncBegin {
        fd: i32,
        token: i64,
        everything: bool,
    },
    /// It returned without an error.
    SyncEnd {
        token: i64,
    },
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    MakeDirectory {
        path: String,
    },
    /// The program's note.
    Mark(String),
    /// `sync_file_range`: promises nothing.
    Range,
}

/// A stretch of the file.
#[derive(Clone)]
pub struct Bytes {
    all: Arc<[u8]>,
    from: usize,
    to: usize,
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.all[self.from..self.to]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

const HEAD: usize = 28;

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

pub fn read(path: &Path) -> Vec<Entry> {
    let all: Arc<[u8]> = std::fs::read(path).unwrap().into();
    let mut entries = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let head = &all[at..at + HEAD];
        let (kind, flags) = (head[0], head[1]);
        let fd = i32::from_ne_bytes(number(head, 4));
        let (a, b) = (i64::from_ne_bytes(number(head, 8)), i64::from_ne_bytes(number(head, 16)));
        let names = at + HEAD;
        let start = names + usize::from(u16::from_ne_bytes(number(head, 2)));
        let end = start + u32::from_ne_bytes(number(head, 24)) as usize;
        let text = |range: std::ops::Range<usize>| String::from_utf8(all[range].to_vec()).unwrap();
        let path = text(names..start);
        entries.push(match kind {
            1 => Entry::Open { fd, path, create: flags & 1 != 0, truncate: flags & 2 != 0 },
            2 => Entry::Close { fd },
            3 => Entry::Dup { fd, copy: a as i32 },
            4 => Entry::Write { fd, at: a as u64, data: Bytes { all: all.clone(), from: start, to: end } },
            5 => Entry::Truncate { fd: (fd >= 0).then_some(fd), path, size: a as u64 },
            6 => Entry::Allocate { fd, end: (a + b) as u64, keep_size: flags != 0 },
            7 => Entry::SyncBegin { fd, token: a, everything: flags != 0 },
            8 => Entry::SyncEnd { token: a },
            9 => Entry::Rename { from: path, to: text(start..end) },
            10 => Entry::Link { from: path, to: text(start..end) },
            11 => Entry::Remove { path },
            12 => Entry::MakeDirectory { path },
            13 => Entry::Mark(path),
            14 => Entry::Range,
            other => panic!("entry of kind {other}"),
        });
        at = end;
    }
    entries
}

/// Compiles the recorder into `directory`.
pub fn build_recorder(directory: &Path) -> PathBuf {
    let library = directory.join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proof/power/recorder.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).args(["-ldl", "-lpthread"]);
    assert!(compiler.status().unwrap().success());
    library
}

/// A note in the record, at its place among what else is done; nothing without a recorder.
pub fn mark(text: &str) {
    type Mark = unsafe extern "C" fn(*const libc::c_char);
    static MARK: std::sync::OnceLock<Option<Mark>> = std::sync::OnceLock::new();
    let mark = MARK.get_or_init(|| {
        // SAFETY: the recorder's symbol of this name has this type; it is looked up by a name that ends with a zero.
        unsafe {
            let found = libc::dlsym(libc::RTLD_DEFAULT, c"power_mark".as_ptr());
            (!found.is_null()).then(|| std::mem::transmute::<*mut libc::c_void, Mark>(found))
        }
    });
    let text = std::ffi::CString::new(text).unwrap();
    if let Some(mark) = mark {
        // SAFETY: the text lives until the call returns.
        unsafe { mark(text.as_ptr()) }
    }
}
