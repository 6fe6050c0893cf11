//! [`Nats`]: one server, with JetStream or without.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::json;

use crate::daemon::Daemon;
use crate::lines::Lines;
use crate::process::program;

/// A `nats-server`, which is killed, paused and started again as every [`Daemon`].
pub struct Nats {
    daemon: Daemon,
    has_jetstream: Arc<AtomicBool>,
}

impl Nats {
    /// A server with JetStream, whose streams outlive its process.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same, with arguments of the test's own.
    pub fn with(arguments: &[&str]) -> Self {
        Self::serving(true, arguments, "")
    }

    /// The same, which closes a connection for which more than so many bytes wait.
    pub fn with_buffers_of(bytes: usize) -> Self {
        Self::serving(true, &[], &format!("max_pending: {bytes}\nmax_payload: {}\n", bytes / 4))
    }

    /// The same, which has room for so many bytes.
    pub fn with_room_for(bytes: usize) -> Self {
        Self::serving(true, &[], &format!("jetstream: {{max_file_store: {bytes}}}\n"))
    }

    /// The same, where everyone may publish and subscribe on these subjects alone.
    pub fn with_rights(publish: &[&str], subscribe: &[&str]) -> Self {
        let rights = json!({"publish": publish, "subscribe": subscribe});
        let user = json!({"user": "anyone", "password": "x", "permissions": rights});
        let settings = json!({"authorization": {"users": [user]}, "no_auth_user": "anyone"});
        Self::serving(true, &[], &settings.to_string())
    }

    /// A server that keeps nothing.
    pub fn without_jetstream() -> Self {
        Self::serving(false, &[], "")
    }

    /// Has it be with JetStream or without from its next start on.
    pub fn set_jetstream(&self, has_jetstream: bool) {
        self.has_jetstream.store(has_jetstream, Relaxed);
    }

    /// Its address as settings take it, without a password.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// What JetStream answers to a request.
    pub fn ask(&self, method: &str, request: &str) -> String {
        self.publish(&format!("$JS.API.{method}"), request)
    }

    /// What JetStream has, if it has it and says so: asked by a method that answers with headers.
    pub fn get(&self, method: &str) -> String {
        let mut client = Lines::connect(self.address());
        client.read();
        client.send(r#"CONNECT {"verbose":false,"headers":true,"no_responders":true}"#);
        client.send("SUB answer 1");
        client.send(&format!("PUB $JS.API.{method} answer 0\r\n"));
        if client.is_silent() {
            return String::new();
        }
        while !client.read().is_empty() {}
        client.read()
    }

    /// Publishes, and returns what is answered.
    pub fn publish(&self, subject: &str, payload: &str) -> String {
        let mut client = Lines::connect(self.address());
        client.read();
        client.send(r#"CONNECT {"verbose":false}"#);
        client.send("SUB answer 1");
        client.send(&format!("PUB {subject} answer {}\r\n{payload}", payload.len()));
        assert!(client.read().starts_with("MSG answer "));
        client.read()
    }

    fn serving(has_jetstream: bool, arguments: &[&str], settings: &str) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        let has_jetstream = Arc::new(AtomicBool::new(has_jetstream));
        let (has, settings) = (has_jetstream.clone(), settings.to_owned());
        let daemon = Daemon::start(SERVES, move |port, directory| {
            let file = directory.join("nats.conf");
            std::fs::write(&file, &settings).unwrap();
            let mut command = program("nats-server");
            command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(directory);
            command.arg("-c").arg(file).args(&arguments);
            if has.load(Relaxed) {
                command.arg("-js");
            }
            command
        });
        Self { daemon, has_jetstream }
    }
}

impl Deref for Nats {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// What a server logs once it listens and has read its streams.
const SERVES: &str = "Listening for client connections on";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_server_keeps_its_streams_until_restarted_empty() {
        let mut nats = Nats::start();
        let made = nats.ask("STREAM.CREATE.kept", r#"{"name":"kept","subjects":["kept"]}"#);
        assert!(made.contains(r#""created""#), "{made}");
        nats.kill();
        nats.restart();
        let kept = nats.ask("STREAM.NAMES", "");
        assert!(kept.contains(r#""streams":["kept"]"#), "{kept}");
        nats.restart_empty();
        let none = nats.ask("STREAM.NAMES", "");
        assert!(none.contains(r#""streams":null"#), "{none}");
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
