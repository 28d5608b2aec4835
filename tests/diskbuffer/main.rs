//! `diskbuffer` through pipelines and harnesses, by behaviour.

mod common;
mod restart;
