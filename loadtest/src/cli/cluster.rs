//! The options of `cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{channels, rate, size};
use crate::schedule::Rate;

#[derive(Clone, Debug, Args)]
pub(crate) struct Cluster {
    /// The server's binary, which is started as each node.
    #[arg(long, value_name = "PATH")]
    pub(crate) fanfare: PathBuf,
    /// How many nodes there are.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub(crate) nodes: u32,
    /// What they meet over; it is started too.
    #[arg(long, default_value = "redis")]
    pub(crate) broker: Broker,
    /// How often a node or the broker is killed; 0s is never.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) kills: Duration,
    /// Subscribers for each node.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// How many channels there are.
    #[arg(long, default_value_t = 20, value_parser = channels())]
    pub(crate) channels: u32,
    /// Channels that each subscriber subscribes to.
    #[arg(long, default_value_t = 5, value_parser = channels())]
    pub(crate) subscriptions_per_connection: u32,
    /// Who publish, over HTTP, each publish to any node.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) publishers: u16,
    /// Publishes a second of each; max is as fast as they are accepted.
    #[arg(long, default_value = "100", value_parser = rate)]
    pub(crate) rate: Rate,
    /// Bytes of a body.
    #[arg(long, default_value = "128", value_parser = size)]
    pub(crate) size: usize,
    /// How long to publish.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long a connection lives on average; three of four are then cut, the others stall.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) life: Duration,
    /// How long one that stalls does not read.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pub(crate) stall: Duration,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broker {
    /// A redis-server that keeps its data through a kill.
    Redis,
    /// A nats-server with JetStream, which keeps its data too.
    Nats,
}
