//! `diskbuffer` through pipelines and harnesses, by behaviour.

mod acknowledge;
mod alone;
mod common;
mod errors;
mod fidelity;
mod flush;
mod limits;
mod outage;
mod places;
mod restart;
mod settings;
mod spill;
mod states;
mod trace;
