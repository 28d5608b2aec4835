//! Pushes from a thread of their own, which may block.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use gst::prelude::*;

pub enum Load {
    Buffers(Vec<gst::Buffer>),
    /// Accepted as one.
    List(gst::BufferList),
}

pub struct Pusher {
    thread: JoinHandle<()>,
    /// The number after the last unit that was accepted.
    accepted: Arc<AtomicUsize>,
}

impl Pusher {
    /// The first is the unit `first`. It ends with the first that is not taken.
    pub fn start(source: &gst::Pad, first: usize, load: Load) -> Self {
        let accepted = Arc::new(AtomicUsize::new(first));
        let (source, told) = (source.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            let tell = |taken: Result<gst::FlowSuccess, gst::FlowError>, count| match taken {
                Ok(_) => {
                    told.fetch_add(count, Ordering::Release);
                    true
                }
                Err(flow) => {
                    assert_eq!(flow, gst::FlowError::Flushing);
                    false
                }
            };
            match load {
                Load::Buffers(buffers) => {
                    _ = buffers.into_iter().all(|buffer| tell(source.push(buffer), 1));
                }
                Load::List(list) => {
                    let count = list.len();
                    tell(source.push_list(list), count);
                }
            }
        });
        Self { thread, accepted }
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end; the number after the last unit that was accepted.
    pub fn join(self) -> usize {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.accepted.load(Ordering::Acquire)
    }
}
