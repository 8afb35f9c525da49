//! `calotype serve` and `calotype worker` on the tiny model, over HTTP: the whole way from a request to its files.

#[path = "../common/mod.rs"]
mod common;
mod operate;
mod predictions;
mod preparations;
mod service;
mod sets;
#[cfg(unix)]
mod trainings;
