//! What the elements promise, against what machines do to them: for minutes at a time with `scripts/soak`.

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
mod power;
