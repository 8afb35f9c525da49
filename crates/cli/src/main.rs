//! The `calotype` binary.

fn main() {}
