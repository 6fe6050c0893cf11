//! What is tested: an address, and how to be let in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use fanfare::config::{Auth, Secret};
use fanfare::{Identity, UserId, auth};
use fastwebsockets::{WebSocketError, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::centrifuge::{self, Position, Subscribed};
use crate::channels::Channels;
use crate::client::Client;
use crate::failure::Failure;
use crate::opening::Opening;
use crate::sse;
use crate::writer::Writer;

/// A server to connect to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    /// What signs tokens; the floor server wants none.
    auth: Auth,
    wire: Wire,
    /// Whether little fits the kernel's buffers, so that who stalls is soon noticed.
    is_narrow: bool,
}

/// What connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Frames of anything, as the floor server takes them.
    Bare,
    Chat,
    /// The Centrifuge protocol, subscribed to some of the channels.
    Centrifuge(Channels),
    /// Server-Sent Events, of some of the channels.
    Sse(Channels),
}

impl Target {
    /// A fanfare server at a URL of scheme, host and port.
    pub(crate) fn fanfare(url: &str, secret: &str, wire: Wire) -> Result<Self, Failure> {
        let mut auth = Auth::default();
        auth.hmac_secret = Some(Secret::new(secret));
        Ok(Self { address: resolve(url)?, auth, wire, is_narrow: false })
    }

    /// A floor server.
    pub(crate) fn floor(address: SocketAddr) -> Self {
        Self { address, auth: Auth::default(), wire: Wire::Bare, is_narrow: false }
    }

    /// The same server, spoken to otherwise.
    pub(crate) fn over(&self, wire: Wire) -> Self {
        Self { wire, ..self.clone() }
    }

    /// The same with small buffers for what is received.
    pub(crate) fn narrow(self) -> Self {
        Self { is_narrow: true, ..self }
    }

    /// Whether a ping is answered, so that who answers is known to be subscribed.
    pub(crate) fn answers_pings(&self) -> bool {
        matches!(self.wire, Wire::Chat | Wire::Centrifuge(_))
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
        if self.is_narrow {
            socket.set_recv_buffer_size(NARROW)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection of a user, subscribed.
    pub(crate) async fn connect(&self, user: u32) -> Result<Link, Failure> {
        match self.wire {
            Wire::Bare | Wire::Chat => self.open(user).await,
            Wire::Sse(channels) => self.stream(user, channels.of(user)).await,
            Wire::Centrifuge(channels) => {
                let channels = channels.of(user).map(|channel| (channel, None));
                Ok(self.subscribe(user, channels).await?.0.into_link())
            }
        }
    }

    /// A connection of a user who publishes: to do that on a channel, one must be subscribed to it.
    pub(crate) async fn connect_publisher(&self, user: u32) -> Result<Link, Failure> {
        let Wire::Centrifuge(channels) = self.wire else { return self.connect(user).await };
        let all = (0..channels.count()).map(|channel| (channel, None));
        Ok(self.subscribe(user, all).await?.0.into_link())
    }

    /// Connects many users, in any order.
    pub(crate) fn connect_all(&self, users: impl Iterator<Item = u32> + 'static) -> Opening<Link> {
        let target = self.clone();
        Opening::new(users.map(move |user| {
            let target = target.clone();
            async move { target.connect(user).await }
        }))
    }

    /// A connection of a user over the Centrifuge protocol, subscribed by the frame that connects
    /// it, to recover from where a position is given; and what was answered, in the same order.
    pub(crate) async fn subscribe<'a>(
        &self,
        user: u32,
        channels: impl Iterator<Item = (u32, Option<&'a Position>)>,
    ) -> Result<(Client, Vec<Subscribed>), Failure> {
        let mut client = Client::new(self.open(user).await?);
        let mut frame = centrifuge::connect(&self.token(user)?);
        let count = centrifuge::subscribe(&mut frame, channels);
        let replies = client.ask(&frame, 1 + count).await?.into_iter();
        Ok((client, replies.filter_map(|reply| reply.subscribe).collect()))
    }

    /// A stream of a user.
    async fn stream(
        &self,
        user: u32,
        channels: impl Iterator<Item = u32>,
    ) -> Result<Link, Failure> {
        let setup = |what: &dyn std::fmt::Display| {
            Failure::Setup(format!("cannot stream from {}: {what}", self.address))
        };
        let names: Vec<_> = channels.map(Channels::name).collect();
        let (path, token) = (format!("/sse?channels={}", names.join(",")), self.token(user)?);
        let opening = async { sse::open(self.dial(user).await?, &path, &token).await };
        let opened = timeout(PATIENCE, opening).await.map_err(|_| setup(&"it does not answer"))?;
        opened.map_err(|error| setup(&error))
    }

    /// A WebSocket of a user.
    pub(crate) async fn open(&self, user: u32) -> Result<Link, Failure> {
        match timeout(PATIENCE, self.shake_hands(user)).await {
            Ok(link) => link,
            Err(_) => Err(Failure::Setup(format!("{} does not answer", self.address))),
        }
    }

    /// What says who a user is.
    pub(crate) fn token(&self, user: u32) -> Result<String, Failure> {
        let identity = Identity::new(UserId::from(user.cast_signed()));
        auth::sign(&self.auth, &identity, TOKEN_TTL)
            .map_err(|error| Failure::Setup(error.to_string()))
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
        Ok(Link {
            read,
            writer: Rc::new(Writer::new(write)),
            early: parts.read_buf,
            form: Form::Frames,
        })
    }

    fn request(&self, user: u32) -> Result<Request<Empty<Bytes>>, Failure> {
        let path = match self.wire {
            Wire::Bare | Wire::Sse(_) => "/",
            Wire::Chat => "/ws/chat",
            Wire::Centrifuge(_) => "/connection/websocket",
        };
        let mut request = Request::get(path)
            .header(HOST, self.address.to_string())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header("sec-websocket-key", handshake::generate_key())
            .header("sec-websocket-version", "13");
        if self.wire == Wire::Chat {
            request = request.header(AUTHORIZATION, format!("Bearer {}", self.token(user)?));
        }
        request.body(Empty::new()).map_err(|error| Failure::Setup(error.to_string()))
    }
}

/// An open connection that nobody reads yet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) read: OwnedReadHalf,
    pub(crate) writer: Rc<Writer>,
    /// What came together with the end of the handshake.
    pub(crate) early: Bytes,
    pub(crate) form: Form,
}

/// What a server sends on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Of WebSocket.
    Frames,
    Events,
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

/// Bytes of a small receive buffer.
const NARROW: u32 = 4096;

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
