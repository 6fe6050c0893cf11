use std::net::SocketAddr;
use std::sync::mpsc;

use fanfare::protocol::{Protocol, Reaction, Received};
use fanfare::server::{AdoptError, accept_upgrade, adopt, adopt_with};
use fanfare::{Hub, Identity, UserId};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;

use crate::support::*;

/// An embedder's own HTTP server, on a runtime of its own: user 7 speaks chat.
pub struct Embedder {
    pub address: SocketAddr,
    pub runtime: Runtime,
    /// What became of each upgrade.
    pub outcomes: mpsc::Receiver<Result<(), AdoptError>>,
}

impl Embedder {
    pub fn start(hub: &Hub) -> Self {
        Self::with(hub, |hub, upgraded| adopt(hub, upgraded, Identity::new(UserId::from(7))))
    }

    /// Hands each upgraded connection to `take`.
    pub fn with(hub: &Hub, take: Take) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (outcome, outcomes) = mpsc::channel();
        let hub = hub.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, hub.clone(), take, outcome.clone()));
            }
        });
        Self { address, runtime, outcomes }
    }

    /// A WebSocket whose 101 has come.
    pub fn open(&self) -> Peer {
        let mut peer = Peer::new(std::net::TcpStream::connect(self.address).unwrap());
        peer.send(handshake("/anywhere", "").as_bytes());
        assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
        peer
    }
}

pub type Take = fn(&Hub, hyper::upgrade::Upgraded) -> Result<(), AdoptError>;

/// Serves one connection that becomes a WebSocket.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    hub: Hub,
    take: Take,
    outcome: mpsc::Sender<Result<(), AdoptError>>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (hub, outcome) = (hub.clone(), outcome.clone());
        async move {
            let response = accept_upgrade(&request);
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    let _ = outcome.send(take(&hub, upgraded));
                }
            });
            response.or_else(|error| {
                Response::builder().status(error.status()).body(Full::<Bytes>::default())
            })
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
}

/// Speaks a protocol that holds up its whole shard at a message `hold`, until a connection of the
/// same user on another shard, or the test, lets go.
pub fn adopt_blocker(hub: &Hub, upgraded: hyper::upgrade::Upgraded) -> Result<(), AdoptError> {
    adopt_with(hub, upgraded, Identity::new(UserId::from(BLOCKER)), Blocker)
}

struct Blocker;

impl Protocol for Blocker {
    fn receive(&mut self, message: Received<'_>) -> Reaction {
        let Received::Text(address) = message else { return Reaction::Ignore };
        // Ends when the test hangs up.
        let stream = std::net::TcpStream::connect(address).unwrap();
        let _ = std::io::Read::read(&mut &stream, &mut [0]);
        Reaction::Ignore
    }
}

/// A shard that stands still until dropped.
pub struct Held {
    _stream: std::net::TcpStream,
}

/// Has a blocker's shard stand still.
pub fn hold(blocker: &mut Peer) -> Held {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    blocker.send_text(&listener.local_addr().unwrap().to_string());
    Held { _stream: listener.accept().unwrap().0 }
}

/// The user of every blocker.
pub const BLOCKER: i32 = 666;
