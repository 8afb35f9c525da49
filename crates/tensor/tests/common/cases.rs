//! Every op, for the tests that treat all alike.
