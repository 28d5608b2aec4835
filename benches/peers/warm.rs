//! Memory that a virtual machine has not used yet costs its first user ten times what it costs later. Page caches of peers would
//! pay for it by turns, so most of it is used once before anything is measured.

/// Of what is free.
const SHARE: f64 = 0.7;
const PAGE: usize = 4096;

pub fn up() {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free =
        text.lines().find_map(|line| line.strip_prefix("MemFree:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let bytes = (free.unwrap_or(0.0) * 1024.0 * SHARE) as usize;
    println!(">> using {} MB of memory once", bytes / 1_000_000);
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}
