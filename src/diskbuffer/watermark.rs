//! How full the buffer is, as a fraction of the limit that is nearest, and when that is worth saying.

use super::settings::Settings;
use super::state::Full;
use crate::store::Totals;

/// Whether the level is above the high watermark and has not come down to the low one since.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    above: bool,
}

/// The level has crossed a watermark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossed {
    /// Above the high one now; else it fell to the low one.
    pub above: bool,
    /// 1.0 is full.
    pub fraction: f64,
    /// The limit that is nearest.
    pub limit: &'static str,
}

/// The fullest of the limits that are set.
pub fn fraction(settings: &Settings, level: Totals) -> Option<(f64, Full)> {
    let limits = [
        (u64::from(settings.max_size_buffers), level.buffers, Full::Buffers),
        (settings.max_size_bytes, level.bytes, Full::Bytes),
        (settings.max_size_time, level.time, Full::Time),
    ];
    let filled = limits.into_iter().filter(|limit| limit.0 > 0);
    filled.map(|(limit, level, full)| (level as f64 / limit as f64, full)).max_by(|a, b| a.0.total_cmp(&b.0))
}

impl Watermark {
    pub fn update(&mut self, settings: &Settings, level: Totals) -> Option<Crossed> {
        let (fraction, limit) = fraction(settings, level)?;
        let above = if self.above { fraction > settings.low_watermark } else { fraction >= settings.high_watermark };
        if above == std::mem::replace(&mut self.above, above) {
            return None;
        }
        Some(Crossed { above, fraction, limit: limit.reason() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crossing_is_told_once() {
        let settings = Settings { max_size_buffers: 100, max_size_bytes: 1 << 40, ..Settings::default() };
        let mut watermark = Watermark::default();
        let told: Vec<_> = [10, 89, 90, 95, 89, 71, 70, 80, 91, 5]
            .into_iter()
            .filter_map(|buffers| watermark.update(&settings, Totals { buffers, ..Totals::default() }))
            .map(|crossed| (crossed.above, (crossed.fraction * 100.0).round() as u32, crossed.limit))
            .collect();
        let limit = "max-size-buffers";
        assert_eq!(told, [(true, 90, limit), (false, 70, limit), (true, 91, limit), (false, 5, limit)]);
        assert_eq!(watermark.update(&Settings::default(), Totals::default()), None, "no limits, no watermarks");
    }
}
