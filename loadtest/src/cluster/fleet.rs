//! The nodes and their broker.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::daemon::Daemon;
use super::directory::Directory;
use super::ports::Ports;
use super::{nats, redis};
use crate::cli::{Broker, Cluster};
use crate::failure::Failure;
use crate::nodes::Nodes;
use crate::target::{Target, Wire};

/// All processes of a cluster; none outlives it.
#[derive(Debug)]
pub(super) struct Fleet {
    nodes: Vec<Daemon>,
    broker: Daemon,
    directory: Directory,
    /// As those who go there know them.
    pub(super) known: Nodes,
}

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Node(usize),
    Broker,
}

impl Fleet {
    /// Starts everything, the broker first.
    pub(super) async fn start(options: &Cluster, wire: Wire) -> Result<Self, Failure> {
        let (directory, mut ports) = (Directory::new()?, Ports::new());
        let (broker, settings) = start_broker(options.broker, &directory, &mut ports).await?;
        let (mut nodes, mut targets) = (Vec::new(), Vec::new());
        for number in 0..options.nodes {
            let address = ports.next()?;
            let mut command = Command::new(&options.fanfare);
            command.args(["serve", "--bind", &address.to_string()]);
            command.env("FANFARE_AUTH_HMAC_SECRET", SECRET).env("FANFARE_API_KEY", API_KEY);
            command.envs(CHANNELS).envs(settings.clone());
            let (name, log) = (format!("node {number}"), format!("node-{number}.log"));
            let log = directory.path().join(log);
            nodes.push(Daemon::start(name, command, log, SERVES).await?);
            targets.push(Target::fanfare(&format!("http://{address}"), SECRET, wire)?);
        }
        Ok(Self { nodes, broker, directory, known: Nodes::new(targets) })
    }

    /// Everything that may be killed.
    pub(super) fn members(&self) -> Vec<Member> {
        (0..self.nodes.len()).map(Member::Node).chain([Member::Broker]).collect()
    }

    pub(super) fn kill(&mut self, member: Member) -> Result<(), Failure> {
        match member {
            Member::Node(number) => self.known.kill(number),
            Member::Broker => self.known.disturb(),
        }
        Ok(self.daemon(member).kill()?)
    }

    /// Starts what was killed at the same port, with the data that it left.
    pub(super) async fn restart(&mut self, member: Member) -> Result<(), Failure> {
        self.daemon(member).restart().await?;
        if let Member::Node(number) = member {
            self.known.revive(number);
        }
        Ok(())
    }

    /// Waits; fails if something ends by itself.
    pub(super) async fn watch_until(&mut self, end: Instant) -> Result<(), Failure> {
        loop {
            for member in self.members() {
                self.daemon(member).check()?;
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            sleep(TICK.min(end - now)).await;
        }
    }

    /// Leaves the logs and the broker's data; returns where.
    pub(super) fn keep_files(&mut self) -> &Path {
        self.directory.keep();
        self.directory.path()
    }

    fn daemon(&mut self, member: Member) -> &mut Daemon {
        match member {
            Member::Node(number) => &mut self.nodes[number],
            Member::Broker => &mut self.broker,
        }
    }
}

/// Starts a broker; returns it, and what nodes must be told to meet there.
async fn start_broker(
    kind: Broker,
    directory: &Directory,
    ports: &mut Ports,
) -> Result<(Daemon, [(&'static str, String); 2]), Failure> {
    let (address, log) = (ports.next()?, directory.path().join("broker.log"));
    let (command, serves, settings) = match kind {
        Broker::Redis => {
            (redis::command(address, directory.path()), redis::SERVES, redis::settings(address))
        }
        Broker::Nats => {
            (nats::command(address, directory.path()), nats::SERVES, nats::settings(address))
        }
    };
    let broker = Daemon::start("the broker".to_owned(), command, log, serves).await?;
    Ok((broker, settings))
}

/// What a node logs once it listens.
const SERVES: &str = "serving address=";

const SECRET: &str = "the secret of a cluster that is audited";
pub(super) const API_KEY: &str = "the api key of a cluster that is audited";

/// What the channels must be for an audit, in which nobody is told of anybody.
const CHANNELS: [(&str, &str); 4] = [
    ("FANFARE_CHAT_ANNOUNCE", "off"),
    ("FANFARE_CHANNEL_SUBSCRIBE", "anyone"),
    ("FANFARE_CHANNEL_HISTORY_SIZE", "1000"),
    ("FANFARE_CHANNEL_RECOVERY", "stream"),
];

const TICK: Duration = Duration::from_millis(50);
