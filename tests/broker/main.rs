//! Real Redis and NATS servers, each test's own, and the faults that they and the way to them have.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests have no public side, and panic when they fail"
)]

// A server of somebody else's at a port of its own.
mod daemon;
// Where a server keeps its data.
mod directory;
// A client of both brokers, without a library.
mod lines;
// NATS, with JetStream or without.
mod nats;
#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "../it/peer.rs"]
mod peer;
// Programs that Debian's packages bring.
mod process;
// A network that fails when told to.
mod proxy;
// Redis, alone.
mod redis;
// Redis, its keys on three servers.
mod redis_cluster;
// Redis, with a replica and those who watch over both.
mod redis_sentinels;
// Redis, encrypted.
mod redis_tls;
#[allow(dead_code, reason = "servers of ours come with the brokers")]
#[path = "../it/support.rs"]
mod support;
