//! The turnstile between writers and switches of extents, with locks that are scheduled.

#[path = "../../../src/store/gate.rs"]
pub mod gate;

mod locks {
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
}
