//! [`TestServer`], and [`Peer`]: a WebSocket client that can do everything wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use fanfare::config::Secret;
use fanfare::{Config, Hub, Identity, UserId, auth, server};
use tokio::sync::oneshot;

/// A server on a thread of its own, drained when dropped.
pub struct TestServer {
    pub address: SocketAddr,
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
        let mut config = Config::default();
        config.auth.hmac_secret = Some(Secret::new(SECRET));
        config.api.key = Some(Secret::new(API_KEY));
        config.server.shards = 1;
        config.chat.announce = fanfare::config::Announce::Off;
        config.drain.spread = Duration::from_millis(20);
        config.drain.timeout = Duration::from_secs(5);
        set(&mut config);
        let hub = Hub::start(config.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, signal) = oneshot::channel();
        let serving = hub.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let shutdown = async { signal.await.unwrap_or(()) };
            runtime.unwrap().block_on(server::serve_hub(listener, &serving, shutdown)).unwrap();
        });
        Self { address, hub, config, shutdown: Some(shutdown), thread: Some(thread) }
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
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream }
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

/// A client on raw bytes.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// A whole masked text frame.
    pub fn send_text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes()));
    }

    /// The next frame, of any kind.
    pub fn read_frame(&mut self) -> Frame {
        let [first, second] = self.read();
        assert_eq!(second & 0x80, 0, "a server masks nothing (RFC 6455 section 5.1)");
        let length = match second {
            126 => u16::from_be_bytes(self.read()).into(),
            127 => usize::try_from(u64::from_be_bytes(self.read())).unwrap(),
            length => length.into(),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        assert_eq!(first & 0xf0, FIN, "a server sends whole frames without extensions");
        Frame { opcode: first & 0x0f, payload }
    }

    /// The next frame, which must be text.
    pub fn read_text(&mut self) -> String {
        self.read_frame().text()
    }

    /// The code and reason of the Close that must come next, and then the end.
    pub fn read_close(&mut self) -> (u16, String) {
        let close = self.read_frame();
        let close = close.close();
        assert!(self.is_at_end(), "nothing may follow a Close (RFC 6455 section 5.5.1)");
        close
    }

    /// The next Close, past whatever else still came before it.
    pub fn skip_to_close(&mut self) -> (u16, String) {
        loop {
            let frame = self.read_frame();
            if frame.opcode == CLOSE {
                return frame.close();
            }
        }
    }

    /// Whether the stream has ended, in order or by a reset.
    pub fn is_at_end(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                true
            }
        }
    }

    /// An answer's head, up to and with the empty line.
    pub fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read::<1>());
        }
        String::from_utf8(head).unwrap()
    }

    /// Status and text of an answer whose length its head tells.
    pub fn read_answer(&mut self) -> (u16, String) {
        let mut answer = self.read_head();
        let lower = answer.to_ascii_lowercase();
        let length = lower
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_once("\r\n").unwrap().0.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        answer.push_str(&String::from_utf8(body).unwrap());
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    pub fn shut_down_writing(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(self) -> String {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        String::from_utf8(self.payload).unwrap()
    }

    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let (code, reason) = self.payload.split_at(2.min(self.payload.len()));
        let code = code.try_into().map_or(0, u16::from_be_bytes);
        (code, String::from_utf8(reason.to_vec()).unwrap())
    }
}

/// A masked frame whose first byte is given.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header and mask of a frame that claims a length.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(0x80 | length as u8),
        126..=0xffff => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

/// A handshake in order (RFC 6455 section 1.2).
pub fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{headers}\r\n"
    )
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

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
