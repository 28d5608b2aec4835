//! `diskbuffer` through pipelines and harnesses, by behaviour.

mod common;
mod errors;
mod limits;
mod outage;
mod places;
mod restart;
mod alone;
mod fidelity;
mod trace;
