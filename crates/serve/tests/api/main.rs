//! The service over HTTP: a real listener and a real queue; the engine alone is a stand-in.

mod cog;
mod events;
mod operate;
mod replicate;
mod service;
