//! The door for embedders: a connection that another HTTP server has upgraded.

use std::sync::Arc;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use crate::hub::{Hub, Inner, Phase};
use crate::inbox::{Adopted, Command};
use crate::protocol::Protocol;
use crate::protocol::chat::Chat;
use crate::socket::Permit;
use crate::user::Identity;

/// Makes an upgraded connection one of the hub's, speaking the chat protocol.
///
/// For an axum or hyper handler that has authenticated its user and answered the handshake with
/// [`accept_upgrade`](super::accept_upgrade). The socket leaves the caller's runtime. axum's own
/// `WebSocketUpgrade` does not fit, as it keeps the socket.
///
/// ```no_run
/// use axum::body::Body;
/// use axum::extract::{Request, State};
/// use axum::response::{IntoResponse, Response};
/// use fanfare::server::{accept_upgrade, adopt};
/// use fanfare::{Hub, Identity, UserId};
///
/// async fn connect(State(hub): State<Hub>, mut request: Request) -> Response {
///     let identity = Identity::new(UserId::from(42)); // whom the application has authenticated
///     let response = match accept_upgrade(&request) {
///         Ok(response) => response,
///         Err(error) => return (error.status(), error.to_string()).into_response(),
///     };
///     let upgrade = hyper::upgrade::on(&mut request);
///     tokio::spawn(async move {
///         if let Ok(upgraded) = upgrade.await {
///             adopt(&hub, upgraded, identity).unwrap_or_else(|error| eprintln!("{error}"));
///         }
///     });
///     response.map(Body::new)
/// }
/// # let app: axum::Router<Hub> = axum::Router::new().route("/ws", axum::routing::any(connect));
/// ```
///
/// # Errors
///
/// [`AdoptError`]; the connection is dropped then.
pub fn adopt(hub: &Hub, upgraded: Upgraded, identity: Identity) -> Result<(), AdoptError> {
    let chat = Chat::new(&identity);
    adopt_with(hub, upgraded, identity, chat)
}

/// Like [`adopt`], speaking a protocol of the embedder's own.
///
/// Texts of the chat protocol reach such a connection too: who joins and leaves, and how many are
/// there, unless `chat.announce` is off; and an error when the ring had no place for its message, or a
/// hook refused it. What it has broadcast is put to the hook that decides about messages if it is JSON.
///
/// # Errors
///
/// [`AdoptError`]; the connection is dropped then.
pub fn adopt_with(
    hub: &Hub,
    upgraded: Upgraded,
    identity: Identity,
    protocol: impl Protocol + 'static,
) -> Result<(), AdoptError> {
    let hub = &hub.inner;
    if hub.phase() != Phase::Open {
        return Err(AdoptError::Closed);
    }
    let (stream, early) = into_tcp(upgraded)?;
    let stream = stream.into_std().map_err(AdoptError::Socket)?;
    place(hub, stream, early, identity, Box::new(protocol))
}

/// Why a connection was not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The hub is draining or closed.
    #[error("the server is shutting down; refuse the handshake with 503")]
    Closed,
    /// `limits.connections` is reached, or every shard's inbox is full.
    #[error("no shard has room for another connection; raise limits.connections or add a node")]
    Full,
    /// The connection is not plain TCP on tokio, so that no socket can be taken from it.
    #[error("only plain tcp connections on tokio can be adopted; end tls in front of the server")]
    NotTcp,
    /// The socket cannot be moved.
    #[error("the socket cannot be moved to a shard: {0}")]
    Socket(#[source] std::io::Error),
}

fn into_tcp(upgraded: Upgraded) -> Result<(TcpStream, Bytes), AdoptError> {
    // hyper-util's auto builder, which axum uses, wraps the socket once more.
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
            Err(_) => Err(AdoptError::NotTcp),
        },
    }
}

fn place(
    hub: &Arc<Inner>,
    stream: std::net::TcpStream,
    early: Bytes,
    identity: Identity,
    protocol: Box<dyn Protocol>,
) -> Result<(), AdoptError> {
    let mut adopted = Box::new(Adopted { stream, early, identity, protocol });
    for shard in hub.shards_by_load() {
        let permit = Permit::take(hub, shard, 0).ok_or(AdoptError::Full)?;
        match hub.shards[shard].send(Command::Adopt(permit, adopted)) {
            Ok(()) => return Ok(()),
            Err(Command::Adopt(_, returned)) => adopted = returned,
            Err(Command::Accept(..)) => break,
        }
    }
    Err(AdoptError::Full)
}
