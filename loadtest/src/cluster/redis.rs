//! Redis as the broker.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// A server that has in its file whatever it answered, so that a kill loses nothing.
pub(super) fn command(address: SocketAddr, directory: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    // A sync would only help against a loss of power; the default may write a second late.
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "no"]);
    command.arg("--dir").arg(directory);
    command
}

/// What a node must be told to meet others there.
pub(super) fn settings(address: SocketAddr) -> [(&'static str, String); 2] {
    [
        ("FANFARE_BROKER_KIND", "redis".to_owned()),
        ("FANFARE_BROKER_REDIS_URL", format!("redis://{address}")),
    ]
}

/// What the server logs once it listens and has read its data.
pub(super) const SERVES: &str = "Ready to accept connections";
