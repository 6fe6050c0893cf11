//! NATS as the broker.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// A server with JetStream that has in its files whatever it answered, so that a kill loses nothing.
pub(super) fn command(address: SocketAddr, directory: &Path) -> Command {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &address.port().to_string()]);
    // It writes before it answers; its sync, every two minutes, helps only against a loss of power.
    command.arg("-js").arg("-sd").arg(directory);
    command
}

/// What a node must be told to meet others there.
pub(super) fn settings(address: SocketAddr) -> [(&'static str, String); 2] {
    [
        ("FANFARE_BROKER_KIND", "nats".to_owned()),
        ("FANFARE_BROKER_NATS_URL", format!("nats://{address}")),
    ]
}

/// What the server logs once it listens and has read its streams.
pub(super) const SERVES: &str = "Listening for client connections on";
