//! `diskbuffer` through pipelines and harnesses, by behaviour.

mod common;
mod limits;
mod outage;
mod restart;
mod alone;
mod fidelity;
mod trace;
