//! What a user runs, `gst-launch-1.0` with one line, against servers that go away and come back: every picture is in what the
//! servers recorded, in order, with repeats only where a recording begins.

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
mod examples;
mod film;
#[path = "../../examples/shared/frames.rs"]
#[allow(dead_code)]
mod frames;
mod kills;
mod outages;
mod places;
mod processes;
mod segments;
mod sender;
#[path = "../shared/servers.rs"]
mod servers;
mod verdict;
