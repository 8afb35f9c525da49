//! The service over HTTP: a real listener and a real queue; the engine alone is a stand-in.

mod cog;
#[path = "../common/mod.rs"]
mod common;
mod docs;
mod events;
mod inputs;
mod limits;
mod operate;
mod outputs;
mod preparations;
mod receiver;
mod replicate;
mod resume;
mod service;
#[path = "../../src/stand_in.rs"]
mod stand_in;
mod unavailable;

/// Where the stand-in finds it.
use calotype_serve::engine;
