//! A disk that fails on command, for a process of its own: `src/store/shim.c`, preloaded.

use std::path::{Path, PathBuf};
use std::process::Command;

const CONTROL: &str = "SHIM_CONTROL";
const PATH: &str = "SHIM_PATH";
const SEED: &str = "SHIM_SEED";

/// Compiles it.
pub fn build(directory: &Path) -> PathBuf {
    let library = directory.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/shim.c");
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status().unwrap();
    assert!(status.success());
    library
}

/// Has files below `location` fail in a process, by what is written to the control file in `directory`.
pub fn preload(command: &mut Command, library: &Path, directory: &Path, location: &Path, seed: u64) {
    command
        .env("LD_PRELOAD", library)
        .env(CONTROL, directory.join("control"))
        .env(PATH, location)
        .env(SEED, seed.to_string());
}

/// In that process: puts these words in force; none for a disk that works.
pub fn command(words: &str) {
    let control = PathBuf::from(std::env::var_os(CONTROL).unwrap());
    // Never half of it.
    let new = control.with_extension("new");
    std::fs::write(&new, words).and_then(|()| std::fs::rename(&new, &control)).unwrap();
}
