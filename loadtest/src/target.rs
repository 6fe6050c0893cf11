//! What is tested: an address, and how to be let in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use fanfare::config::{Auth, Secret};
use fanfare::{Identity, UserId, auth};
use fastwebsockets::{WebSocketError, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::failure::Failure;

/// A server to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    /// What signs tokens; the floor server wants none.
    auth: Option<Auth>,
}

impl Target {
    /// A fanfare server at a URL of scheme, host and port.
    pub(crate) fn fanfare(url: &str, secret: &str) -> Result<Self, Failure> {
        let mut auth = Auth::default();
        auth.hmac_secret = Some(Secret::new(secret));
        Ok(Self { address: resolve(url)?, auth: Some(auth) })
    }

    /// A floor server.
    pub(crate) fn floor(address: SocketAddr) -> Self {
        Self { address, auth: None }
    }

    pub(crate) fn is_floor(&self) -> bool {
        self.auth.is_none()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A bare TCP connection.
    ///
    /// On loopback the source address goes round with the user, so that ports suffice for any
    /// number of connections.
    pub(crate) async fn dial(&self, user: u32) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.address.ip() == Ipv4Addr::LOCALHOST {
            let source = Ipv4Addr::new(127, 0, 0, 1 + (user % SOURCES) as u8);
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A WebSocket of a user.
    pub(crate) async fn connect(&self, user: u32) -> Result<Link, Failure> {
        match timeout(PATIENCE, self.shake_hands(user)).await {
            Ok(link) => link,
            Err(_) => Err(Failure::Setup(format!("{} does not answer", self.address))),
        }
    }

    async fn shake_hands(&self, user: u32) -> Result<Link, Failure> {
        let cannot_connect = |error: &dyn std::fmt::Display| {
            Failure::Setup(format!("cannot connect to {}: {error}", self.address))
        };
        let stream = self.dial(user).await.map_err(|error| cannot_connect(&error))?;
        let request = self.request(user)?;
        let (websocket, _) = handshake::client(&TokioExecutor::new(), request, stream)
            .await
            .map_err(|error| match error {
                WebSocketError::InvalidStatusCode(status) => {
                    cannot_connect(&format!("the handshake is answered with status {status}"))
                }
                error => cannot_connect(&error),
            })?;
        let upgraded = websocket.into_inner().into_inner();
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| cannot_connect(&"the handshake left no TCP stream"))?;
        let (read, write) = parts.io.into_inner().into_split();
        Ok(Link { read, write, early: parts.read_buf })
    }

    fn request(&self, user: u32) -> Result<Request<Empty<Bytes>>, Failure> {
        let mut request = Request::get(if self.is_floor() { "/" } else { "/ws/chat" })
            .header(HOST, self.address.to_string())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header("sec-websocket-key", handshake::generate_key())
            .header("sec-websocket-version", "13");
        if let Some(auth) = &self.auth {
            let identity = Identity::new(UserId::from(user.cast_signed()));
            let token = auth::sign(auth, &identity, TOKEN_TTL)
                .map_err(|error| Failure::Setup(error.to_string()))?;
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Empty::new()).map_err(|error| Failure::Setup(error.to_string()))
    }
}

/// An open WebSocket that nobody reads yet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) read: OwnedReadHalf,
    pub(crate) write: OwnedWriteHalf,
    /// What came together with the end of the handshake.
    pub(crate) early: Bytes,
}

/// Connects users, a bounded number at once.
#[derive(Debug)]
pub(crate) struct Opening<Users> {
    target: Target,
    users: Users,
    pending: JoinSet<Result<Link, Failure>>,
}

impl<Users: Iterator<Item = u32>> Opening<Users> {
    pub(crate) fn new(target: &Target, users: Users) -> Self {
        Self { target: target.clone(), users, pending: JoinSet::new() }
    }

    /// The next one that is through; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Result<Link, Failure>> {
        while self.pending.len() < CONCURRENT
            && let Some(user) = self.users.next()
        {
            let target = self.target.clone();
            self.pending.spawn_local(async move { target.connect(user).await });
        }
        let ended = self.pending.join_next().await?;
        Some(ended.unwrap_or_else(|error| Err(Failure::Run(error.to_string()))))
    }
}

fn resolve(url: &str) -> Result<SocketAddr, Failure> {
    let unusable =
        || Failure::Setup(format!("{url:?} is no URL to use; give one as http://127.0.0.1:8080"));
    let uri: hyper::Uri = url.parse().map_err(|_| unusable())?;
    let is_plain = matches!(uri.scheme_str(), Some("http" | "ws"));
    let host = uri.host().filter(|_| is_plain && uri.path() == "/").ok_or_else(unusable)?;
    let host = host.trim_matches(['[', ']']);
    let addresses = (host, uri.port_u16().unwrap_or(80)).to_socket_addrs();
    let mut addresses =
        addresses.map_err(|error| Failure::Setup(format!("cannot resolve {host}: {error}")))?;
    addresses.next().ok_or_else(unusable)
}

/// How long a connection and its handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Handshakes under way at once: enough to keep a server busy, few enough not to keep others waiting.
const CONCURRENT: usize = 32;

/// Source addresses on loopback.
const SOURCES: u32 = 250;

const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_make_a_url() {
        assert_eq!(resolve("http://127.0.0.1:8080").unwrap(), ([127, 0, 0, 1], 8080).into());
        assert_eq!(resolve("ws://127.0.0.1/").unwrap(), ([127, 0, 0, 1], 80).into());
        for url in
            ["", "127.0.0.1:8080", "https://127.0.0.1", "http://127.0.0.1/ws/chat", "http://"]
        {
            assert!(matches!(resolve(url), Err(Failure::Setup(_))), "{url}");
        }
    }
}
