//! Real Redis and NATS servers, each test's own, and the faults that they and the way to them have.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests have no public side, and panic when they fail"
)]

// What is done on one node and seen on another.
mod across;
#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "../it/client.rs"]
mod client;
// A server of somebody else's at a port of its own.
mod daemon;
// Where a server keeps its data.
mod directory;
// A broker that fails, of either kind.
mod failures;
// Where servers listen that may end and begin again.
#[path = "../e2e/ports.rs"]
mod ports;
// What a broker keeps.
mod records;
// A client of both brokers, without a library.
mod lines;
// NATS, with JetStream or without.
mod nats;
// NATS that fails.
mod nats_failures;
// Servers of ours that meet over a broker.
mod node;
#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "../it/peer.rs"]
mod peer;
// Who is here, as all nodes know it.
mod presence;
// Programs that Debian's packages bring.
mod process;
// A network that fails when told to.
mod proxy;
#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "../it/hooks/receiver.rs"]
mod receiver;
// Redis, alone.
mod redis;
// Redis, its keys on three servers.
mod redis_cluster;
// Redis that fails.
mod redis_failures;
// Redis, with a replica and those who watch over both.
mod redis_sentinels;
// Redis, encrypted.
mod redis_tls;
// What a node says that cannot start for its broker.
mod start;
// What tests do again and again.
mod steps;
#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "../it/support.rs"]
mod support;
// Redis with Sentinels, as a cluster, and encrypted.
mod topologies;
