//! HTTP around the hub: accept, handshake, API, and the door for embedders.

mod accept;
mod adopt;
mod api;
mod consent;
mod cors;
mod http;
mod listeners;
mod pace;
mod page;
mod respond;
mod route;
mod sse;
mod upgrade;
mod wire;

use std::future::Future;
use std::io;
use std::net::SocketAddr;

pub use adopt::{AdoptError, adopt, adopt_with};
pub(crate) use http::serve_socket;
pub(crate) use listeners::Door;
pub use listeners::Listeners;
pub use upgrade::{HandshakeError, accept as accept_upgrade};

use crate::config::Config;
use crate::hub::{Hub, StartError};

/// Runs a server on a bound listener, or two, until `shutdown` resolves, then drains it.
///
/// Takes whatever ports the listeners are bound to: `server.bind` and `server.internal_bind` are for
/// [`Listeners::bind`].
/// Returns once every socket is gone, at the latest `drain.timeout` after `shutdown`.
///
/// # Errors
///
/// The configuration breaks a bound or asks for a listener that is not given, or the system refuses
/// a thread or a listener.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use fanfare::Config;
/// use fanfare::config::Secret;
/// use fanfare::server::Listeners;
///
/// let mut config = Config::default();
/// config.auth.hmac_secret = Some(Secret::new("at least thirty-two bytes of secret"));
/// let listeners = Listeners::bind(&config.server)?; // or a TcpListener alone
/// let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// fanfare::serve(listeners, config, shutdown).await?;
/// # Ok(())
/// # }
/// ```
pub async fn serve(
    listeners: impl Into<Listeners>,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_hub(listeners, &Hub::start(config)?, shutdown).await
}

/// Like [`serve`], for a hub that the caller also publishes through.
///
/// # Errors
///
/// The configuration asks for a listener that is not given, or the system refuses one.
pub async fn serve_hub(
    listeners: impl Into<Listeners>,
    hub: &Hub,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listeners = listeners.into();
    if hub.inner.config.server.internal_bind.is_some() && listeners.internal.is_none() {
        return Err(ServeError::NoInternal);
    }
    accept::until(shutdown, listeners, &hub.inner).await.map_err(ServeError::Listener)?;
    tracing::info!(connections = hub.connections(), "draining");
    let left = hub.drain().await;
    if left > 0 {
        tracing::warn!(left, "drain.timeout is over; some sockets are left");
    }
    Ok(())
}

/// Why a server ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}; set {key} to another address")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What sets it.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// `server.internal_bind` is set, so that its endpoints may not be served on the only listener.
    #[error(
        "server.internal_bind is set, but only one listener is given; use Listeners::bind, or \
         leave it out"
    )]
    NoInternal,
    /// The hub did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener cannot be used.
    #[error("cannot listen: {0}")]
    Listener(#[source] io::Error),
}
