//! The disk below a process, at random.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::shim;
use crate::streams::Random;

/// What can be the matter with it.
const FAULTS: [&str; 20] = [
    "eio",
    "eio@5",
    "eio@40 only=.log",
    "rofs",
    "full",
    "full@10 short@50",
    "fsync",
    "fsync@30 slow=5",
    "reads",
    "reads@10",
    "reads@50 only=.sst",
    "reads only=.log",
    "slow=100",
    "slow=20 eintr@20",
    "slow=5 eio@3 reads@3",
    "short shortread",
    "short@50 shortread@50 eintr@50",
    "eintr@90",
    "eio reads",
    "full reads@30 fsync@50",
];
/// After a fault: the store looks at the disk every two seconds, with much else to do on a loaded machine.
const AFTERMATH: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    words: &'static str,
    healed: Option<Instant>,
}

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn put(&self, words: &'static str) {
        let mut state = self.0.lock().unwrap();
        if !state.words.is_empty() {
            state.healed = Some(Instant::now());
        }
        state.words = words;
        shim::command(words);
    }

    pub fn fail(&self, random: &mut Random) {
        self.put(FAULTS[(random.bits() % FAULTS.len() as u64) as usize]);
    }

    pub fn heal(&self) {
        self.put("");
    }

    /// Also what follows from a fault that is over.
    pub fn is_faulty(&self) -> bool {
        let state = self.0.lock().unwrap();
        !state.words.is_empty() || state.healed.is_some_and(|at| at.elapsed() < AFTERMATH)
    }
}
