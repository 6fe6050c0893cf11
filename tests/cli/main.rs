//! The binary, as an operator meets it.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests have no public side, and panic when they fail"
)]

// What it says and which code it ends with, before it serves anything.
mod commands;
// A run under the signals and shortages that an operating system has to offer.
mod life;
#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "../it/peer.rs"]
mod peer;
// The binary as a child process.
mod process;
