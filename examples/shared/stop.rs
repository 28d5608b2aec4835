//! Orderly end of a program that is asked to stop from outside.

use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that SIGINT and SIGTERM raise. Nothing but an atomic store happens in the signal handler.
pub fn flag() -> &'static AtomicBool {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    static STOP: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" {
        safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }
    extern "C" fn raise(_number: i32) {
        STOP.store(true, Ordering::Relaxed);
    }
    signal(SIGINT, raise);
    signal(SIGTERM, raise);
    &STOP
}
