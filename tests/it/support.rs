//! [`TestServer`]: the whole server in this process, with the hub at hand.

use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use fanfare::config::Secret;
use fanfare::hook::Hooks;
use fanfare::server::Listeners;
use fanfare::{Config, Hub, Identity, UserId, auth, server};
use tokio::sync::oneshot;

pub use crate::peer::*;

/// A server on a thread of its own, drained when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    /// Where the API, metrics and health are, if the settings part them from the rest.
    pub internal: Option<SocketAddr>,
    pub hub: Hub,
    config: Config,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// One shard, nothing announced: what a test receives is what it asked for.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, with settings of the test's own.
    pub fn with(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Self::config();
        set(&mut config);
        let hub = Hub::start(config.clone()).unwrap();
        Self::serving(hub, config)
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.auth.hmac_secret = Some(Secret::new(SECRET));
        config.api.key = Some(Secret::new(API_KEY));
        config.server.bind = "127.0.0.1:0".parse().unwrap();
        config.server.shards = 1;
        config.chat.announce = fanfare::config::Announce::Off;
        config.drain.spread = Duration::from_millis(20);
        config.drain.timeout = Duration::from_secs(5);
        config
    }

    /// A server whose hub asks hooks in the process.
    pub fn hooked(hooks: impl Hooks) -> Self {
        let config = Self::config();
        let hub = Hub::start_with(config.clone(), hooks).unwrap();
        Self::serving(hub, config)
    }

    fn serving(hub: Hub, config: Config) -> Self {
        let listeners = Listeners::bind(&config.server).unwrap();
        let address = listeners.public.local_addr().unwrap();
        let internal = listeners.internal.as_ref().map(|it| it.local_addr().unwrap());
        let (shutdown, signal) = oneshot::channel();
        let serving = hub.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let shutdown = async { signal.await.unwrap_or(()) };
            runtime.unwrap().block_on(server::serve_hub(listeners, &serving, shutdown)).unwrap();
        });
        Self { address, internal, hub, config, shutdown: Some(shutdown), thread: Some(thread) }
    }

    /// A token for an hour.
    pub fn token(&self, user: i32) -> String {
        self.token_for(&Identity::new(UserId::from(user)), Duration::from_secs(3600))
    }

    pub fn token_for(&self, identity: &Identity, ttl: Duration) -> String {
        auth::sign(&self.config.auth, identity, ttl).unwrap()
    }

    /// A chat connection, registered when this returns.
    pub fn connect(&self, user: i32) -> Peer {
        let mut peer = self.open(user);
        peer.send_text(r#"{"type":"ping"}"#);
        while peer.read_frame().text() != r#"{"type":"pong"}"# {}
        peer
    }

    /// A chat connection whose 101 has come; what comes after it is still to be read.
    pub fn open(&self, user: i32) -> Peer {
        self.open_at(&format!("/ws/chat?token={}", self.token(user)), "")
    }

    /// A WebSocket at a path, with further header lines.
    pub fn open_at(&self, path: &str, headers: &str) -> Peer {
        let mut peer = self.dial();
        peer.send(handshake(path, headers).as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        peer
    }

    /// A bare TCP connection.
    pub fn dial(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// Sends one request on a connection of its own; returns status and whole answer.
    pub fn request(&self, request: &str) -> (u16, String) {
        let mut peer = self.dial();
        peer.send(request.as_bytes());
        peer.read_answer()
    }

    /// `POST /api/<method>` with the right key.
    pub fn api(&self, method: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.request(&post(method, API_KEY, body));
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The value of one line of `/metrics`, 0 if there is none.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, answer) =
            self.request("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut values = answer.lines().filter_map(|line| line.strip_prefix(series));
        values.next().map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Has the server drain; it goes on in the background.
    pub fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits for the server's end.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// An API request.
pub fn post(method: &str, key: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /api/{method} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

pub const SECRET: &str = "a secret for tests, 32 bytes long";
pub const API_KEY: &str = "an api key for tests";
