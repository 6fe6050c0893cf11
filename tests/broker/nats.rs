//! [`Nats`]: one server, with JetStream or without.

use std::ops::{Deref, DerefMut};

use crate::daemon::Daemon;
use crate::process::program;

/// A `nats-server`, which is killed, paused and started again as every [`Daemon`].
pub struct Nats(Daemon);

impl Nats {
    /// A server with JetStream, whose streams outlive its process.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same, with arguments of the test's own.
    pub fn with(arguments: &[&str]) -> Self {
        Self::serving(&[&["-js"], arguments].concat())
    }

    /// A server that keeps nothing.
    pub fn without_jetstream() -> Self {
        Self::serving(&[])
    }

    /// Its address as settings take it, without a password.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    fn serving(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        Self(Daemon::start(SERVES, move |port, directory| {
            let mut command = program("nats-server");
            command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(directory);
            command.args(&arguments);
            command
        }))
    }
}

impl Deref for Nats {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

/// What a server logs once it listens and has read its streams.
const SERVES: &str = "Listening for client connections on";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Lines;

    #[test]
    fn a_killed_server_keeps_its_streams_until_restarted_empty() {
        let mut nats = Nats::start();
        let made = ask(&nats, "STREAM.CREATE.kept", r#"{"name":"kept","subjects":["kept"]}"#);
        assert!(made.contains(r#""created""#), "{made}");
        nats.kill();
        nats.restart();
        let kept = ask(&nats, "STREAM.NAMES", "");
        assert!(kept.contains(r#""streams":["kept"]"#), "{kept}");
        nats.restart_empty();
        let none = ask(&nats, "STREAM.NAMES", "");
        assert!(none.contains(r#""streams":null"#), "{none}");
    }

    /// What JetStream answers to a request.
    fn ask(nats: &Nats, method: &str, request: &str) -> String {
        let mut client = Lines::connect(nats.address());
        client.read();
        client.send(r#"CONNECT {"verbose":false}"#);
        client.send("SUB answer 1");
        client.send(&format!("PUB $JS.API.{method} answer {}\r\n{request}", request.len()));
        assert!(client.read().starts_with("MSG answer "));
        client.read()
    }

    #[test]
    fn a_paused_server_answers_once_it_is_resumed() {
        let nats = Nats::start();
        let mut client = Lines::connect(nats.address());
        assert!(client.read().starts_with("INFO "));
        nats.pause();
        client.send("PING");
        assert!(client.is_silent());
        nats.resume();
        assert_eq!(client.read(), "PONG");
    }

    #[test]
    fn arguments_reach_the_server() {
        let info = |nats: &Nats| Lines::connect(nats.address()).read();
        let guarded = Nats::with(&["--user", "x", "--pass", "y"]);
        let guarded = info(&guarded);
        assert!(guarded.contains(r#""auth_required":true"#), "{guarded}");
        assert!(guarded.contains(r#""jetstream":true"#), "{guarded}");
        let plain = Nats::without_jetstream();
        assert!(plain.url().ends_with(&plain.port().to_string()));
        let plain = info(&plain);
        assert!(!plain.contains(r#""jetstream":true"#), "{plain}");
    }
}
