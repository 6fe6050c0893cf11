//! [`Redis`]: one server, alone.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;

use crate::daemon::Daemon;
use crate::process::{program, run};

/// A `redis-server`, which is killed, paused and started again as every [`Daemon`].
pub struct Redis(Daemon);

impl Redis {
    /// A server whose data are lost with its process.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server whose data outlive its process: whatever it answered is in its file.
    pub fn persistent() -> Self {
        // The default may write a second late; a sync would only help against a loss of power.
        Self::with(&["--appendonly", "yes", "--appendfsync", "no"])
    }

    /// A server with arguments of the test's own.
    pub fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        Self(Daemon::start(SERVES, move |port, directory| {
            let mut command = server(port, directory);
            command.args(&arguments);
            command
        }))
    }

    /// Its address as settings take it, without a password.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// What [`cli`] prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port(), arguments)
    }
}

impl Deref for Redis {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

/// Runs `redis-cli` against a port; an error that the server answers is printed as any answer.
pub fn cli(port: u16, arguments: &[&str]) -> String {
    run(program("redis-cli").args(["-p", &port.to_string()]).args(arguments))
}

/// A server without persistence; arguments that follow win over these.
pub fn server(port: u16, directory: &Path) -> Command {
    let mut command = program("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--dir"]).arg(directory);
    command
}

/// What a server logs once it listens and has read its data.
pub const SERVES: &str = "Ready to accept connections";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Lines;

    #[test]
    fn only_a_persistent_server_keeps_its_data_through_a_kill() {
        for (mut redis, kept) in [(Redis::start(), ""), (Redis::persistent(), "value")] {
            assert_eq!(redis.cli(&["set", "key", "value"]), "OK");
            redis.kill();
            assert!(std::net::TcpStream::connect(redis.address()).is_err());
            redis.restart();
            assert_eq!(redis.cli(&["get", "key"]), kept);
        }
    }

    #[test]
    fn restarted_empty_even_a_persistent_server_has_no_data() {
        let mut redis = Redis::persistent();
        redis.cli(&["set", "key", "value"]);
        redis.restart_empty();
        assert_eq!(redis.cli(&["get", "key"]), "");
    }

    #[test]
    fn a_paused_server_answers_once_it_is_resumed() {
        let redis = Redis::start();
        let mut open = Lines::connect(redis.address());
        assert_eq!(open.ask("PING"), "+PONG");
        redis.pause();
        let mut new = Lines::connect(redis.address());
        for connection in [&mut open, &mut new] {
            connection.send("PING");
            assert!(connection.is_silent());
        }
        redis.resume();
        assert_eq!((open.read().as_str(), new.read().as_str()), ("+PONG", "+PONG"));
    }

    #[test]
    fn a_paused_server_can_be_killed() {
        let mut redis = Redis::start();
        redis.pause();
        redis.restart();
        assert_eq!(redis.cli(&["ping"]), "PONG");
    }

    #[test]
    fn arguments_reach_the_server() {
        let limit = ["pubsub", "256kb", "0", "0"];
        let before = ["--requirepass", "x", "--client-output-buffer-limit"];
        let redis = Redis::with(&[&before[..], &limit[..]].concat());
        assert!(redis.cli(&["ping"]).starts_with("NOAUTH "));
        let url = redis.url().replace("//", "//default:x@");
        let limits = run(program("redis-cli").args(["-u", &url]).args(LIMITS));
        assert!(limits.ends_with("pubsub 262144 0 0"), "{limits}");
    }

    const LIMITS: [&str; 3] = ["config", "get", "client-output-buffer-limit"];
}
