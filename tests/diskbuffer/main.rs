//! `diskbuffer` through pipelines and harnesses, by behaviour.

mod acknowledge;
mod alone;
mod attack;
mod common;
mod damaged;
mod errors;
mod fidelity;
mod flush;
mod full_disk;
mod giving_up;
mod kills;
mod limits;
mod model;
mod outage;
mod overflow;
#[path = "../shared/pictures.rs"]
mod pictures;
mod places;
mod queue;
mod restart;
#[path = "../shared/servers.rs"]
mod servers;
mod settings;
mod sinks;
mod spill;
mod states;
mod trace;
#[path = "../shared/victims.rs"]
#[allow(dead_code)]
mod victims;
