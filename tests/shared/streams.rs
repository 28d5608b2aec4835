//! Made-up and recorded streams with their truth, for what is tested with and without a pipeline. Times are ns.
//!
//! Recorded stamps lie beside the repository in `../shared/timestamps`; without them those tests say so and prove nothing.

use std::path::Path;

/// SplitMix64: the same numbers everywhere, for ever.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub fn normal(&mut self, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        sigma * radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

pub fn millis(ms: f64) -> i64 {
    (ms * 1e6).round() as i64
}

/// The value below which this share of all lies.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

/// Columns of seconds since 1970, exact to the microsecond.
pub fn recorded<const N: usize>(name: &str, columns: [usize; N]) -> Option<Vec<[i64; N]>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/timestamps").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("{name} is not on this machine: nothing was proved with it");
        return None;
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        columns.map(|column| {
            let (seconds, rest) = fields[column].split_once('.').unwrap();
            let rest: i64 = format!("{rest:0<9}").parse().unwrap();
            seconds.parse::<i64>().unwrap() * 1_000_000_000 + rest
        })
    };
    Some(lines.map(row).collect())
}

/// Distance of frames at 30 fps.
pub const FRAME: f64 = 1e9 / 30.0;

/// A frame of a camera: when it was taken, what it says, when it comes.
pub struct Shot {
    pub taken: i64,
    pub stamp: i64,
    pub arrival: i64,
}

/// 30 fps; a second takes `ppm` longer than the sender says; exponential jitter; 2 % are lost.
pub fn camera(seed: u64, ppm: f64, jitter: f64, seconds: f64) -> impl Iterator<Item = Shot> {
    let mut random = Random::new(seed);
    let mut last = 0;
    (0..(seconds * 30.0) as i64).filter_map(move |i| {
        let taken = 1e9 + i as f64 * FRAME;
        let stamp = (taken - 1e9) / (1.0 + ppm * 1e-6);
        // TCP and jitter buffers keep the order.
        let arrival = ((taken + random.exponential(jitter * 1e6)).round() as i64).max(last);
        last = arrival;
        let lost = random.chance(0.02);
        (!lost).then_some(Shot { taken: taken.round() as i64, stamp: stamp.round() as i64, arrival })
    })
}

/// The filter of rtpjitterbuffer, from its description (Fober, Orlarey, Letz, "Real time clock skew estimation over network
/// delays", 2005): the least delay of a window of 512 packets, filled over two seconds at most, into a running average
/// with weight 1/125; while the window fills, the average follows with the square of how full it is.
#[derive(Default)]
pub struct WindowedLow {
    base: Option<(i64, i64)>,
    window: Vec<i64>,
    position: usize,
    filling: bool,
    low: i64,
    skew: i64,
}

impl WindowedLow {
    pub fn push(&mut self, stamp: i64, arrival: i64) -> i64 {
        let Some((stamp0, arrival0)) = self.base else {
            self.base = Some((stamp, arrival));
            self.filling = true;
            return arrival;
        };
        let sent = stamp - stamp0;
        let delta = arrival - arrival0 - sent;
        if self.filling {
            if self.window.is_empty() {
                self.skew = delta;
                self.low = delta;
            }
            self.window.push(delta);
            self.low = self.low.min(delta);
            if sent >= 2_000_000_000 || self.window.len() >= 512 {
                self.skew = self.low;
                self.filling = false;
            } else {
                let time = sent as f64 / 2e9;
                let packets = self.window.len() as f64 / 512.0;
                let share = time.max(packets).powi(2);
                self.skew = (share * self.low as f64 + (1.0 - share) * self.skew as f64) as i64;
            }
        } else {
            self.window[self.position] = delta;
            self.position = (self.position + 1) % self.window.len();
            self.low = *self.window.iter().min().unwrap();
            self.skew = (self.low + 124 * self.skew) / 125;
        }
        arrival0 + sent + self.skew
    }
}

/// What is done to pairs of frames of two sensors before they are to be found again.
#[derive(Clone, Copy)]
pub struct Trial {
    pub lost: f64,
    /// Of depth: deviation of its stamps in ms, drift, and by how many ms it comes later.
    pub noise: f64,
    pub ppm: f64,
    pub late: f64,
    /// Both count 90 kHz, each from a zero of its own.
    pub own_zero: bool,
}

pub const HARD: Trial = Trial { lost: 0.05, noise: 4.0, ppm: 500.0, late: 0.0, own_zero: false };

/// A frame on its way: stream, which one, what it says, when it comes.
pub struct Frame {
    pub stream: usize,
    pub index: usize,
    pub raw: u64,
    pub stamp: i64,
    pub arrival: i64,
}

/// In order of arrival, and how many pairs are still whole.
pub fn frames(pairs: &[[i64; 2]], trial: Trial, seed: u64) -> (Vec<Frame>, usize) {
    let mut random = Random::new(seed);
    let mut frames = Vec::new();
    let mut both = 0;
    let mut last = [0; 2];
    let mut highest = i64::MIN;
    for (index, pair) in pairs.iter().enumerate() {
        let kept = [!random.chance(trial.lost), !random.chance(trial.lost)];
        both += usize::from(kept == [true, true]);
        for stream in [0, 1] {
            let taken = pair[stream];
            let since = (taken - pairs[0][1]) as f64;
            let mut stamp = taken;
            if stream == 1 {
                stamp = pairs[0][1]
                    + (since * (1.0 + trial.ppm * 1e-6)).round() as i64
                    + millis(random.normal(trial.noise));
                stamp = stamp.max(highest.saturating_add(1_000_000));
                highest = stamp;
            }
            let way = millis(5.0 + random.exponential(3.0) + if stream == 1 { trial.late } else { 0.0 });
            last[stream] = last[stream].max(taken + way);
            let zero = pairs[0][1] - [1000, 95_440][stream] * 1_000_000_000;
            let ticks = (i128::from(stamp - zero) * 90_000 + 500_000_000).div_euclid(1_000_000_000);
            let raw = if trial.own_zero { ticks.rem_euclid(1 << 33) as u64 } else { stamp as u64 };
            if kept[stream] {
                frames.push(Frame { stream, index, raw, stamp, arrival: last[stream] });
            }
        }
    }
    frames.sort_by_key(|frame| frame.arrival);
    (frames, both)
}

/// Places in presentation order of eight frames in coding order, with two B-frames.
const HALF_GOP: [i64; 8] = [0, 3, 1, 2, 6, 4, 5, 7];

/// Decode and presentation place of the frame that is coded as number `i`; the distance between the two is two frames
/// at least.
pub fn with_b_frames(i: i64) -> (i64, i64) {
    (i, i / 8 * 8 + HALF_GOP[(i % 8) as usize] + 2)
}

/// How stamps of a format count.
#[derive(Debug, Clone, Copy)]
pub struct Counting {
    pub per_second: u32,
    pub bits: u32,
    /// Counts since 1970.
    pub unix: bool,
    /// Counts from zero or little above it, as running time does.
    pub low: bool,
}

/// What a live stream of 25 fps says and when it comes.
pub fn video(counting: Counting, seed: u64, b_frames: bool, burst: bool, seconds: f64) -> Vec<(u64, i64)> {
    let mut random = Random::new(seed);
    let Counting { bits, .. } = counting;
    let per_second = f64::from(counting.per_second);
    let origin = if counting.unix {
        1.6e9 + random.unit() * 2e8
    } else if counting.low {
        random.unit() * if random.chance(0.5) { 5.0 } else { 1e5 }
    } else if random.chance(0.3) {
        2f64.powi(bits as i32) / per_second - random.unit()
    } else {
        random.unit() * 2e4
    };
    let jitter = [0.0, 1.0, 5.0, 20.0, 60.0][(random.bits() % 5) as usize];
    let lost = [0.0, 0.02, 0.1][(random.bits() % 3) as usize];
    let phase = random.unit() * 40.0;
    let ahead = if burst { random.unit() * 3.0 } else { 0.0 };
    let mut last = 0;
    let frames = ((seconds + ahead) * 25.0) as i64;
    let mut stamps = Vec::new();
    for i in 0..frames {
        let taken = i as f64 / 25.0;
        // What was taken before we came arrives at once.
        let came = (taken - ahead).max(taken * 0.002);
        let place = if b_frames { with_b_frames(i).1 - 2 } else { i };
        let ticks = ((origin + place as f64 / 25.0) * per_second) as u128;
        let raw = if bits == 0 { ticks as u64 } else { (ticks & ((1 << bits) - 1)) as u64 };
        last = millis(came * 1e3 + phase + random.exponential(jitter)).max(last);
        if !random.chance(lost) {
            stamps.push((raw, last));
        }
    }
    stamps
}
