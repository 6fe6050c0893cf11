//! HTTP around the hub: accept, handshake, API, and the door for embedders.

mod accept;
mod adopt;
mod api;
mod http;
mod pace;
mod page;
mod respond;
mod route;
mod upgrade;
mod wire;

use std::future::Future;
use std::io;
use std::net::TcpListener;

pub use adopt::{AdoptError, adopt, adopt_with};
pub(crate) use http::serve_socket;
pub use upgrade::{HandshakeError, accept as accept_upgrade};

use crate::config::Config;
use crate::hub::{Hub, StartError};

/// Runs a server on a bound listener until `shutdown` resolves, then drains it.
///
/// Takes whatever port the listener is bound to; `config.server.bind` is for those who bind.
/// Returns once every socket is gone, at the latest `drain.timeout` after `shutdown`.
///
/// # Errors
///
/// The configuration breaks a bound, or the system refuses a thread or the listener.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use fanfare::Config;
/// use fanfare::config::Secret;
///
/// let mut config = Config::default();
/// config.auth.hmac_secret = Some(Secret::new("at least thirty-two bytes of secret"));
/// let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
/// let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// fanfare::serve(listener, config, shutdown).await?;
/// # Ok(())
/// # }
/// ```
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_hub(listener, &Hub::start(config)?, shutdown).await
}

/// Like [`serve`], for a hub that the caller also publishes through.
///
/// # Errors
///
/// The system refuses the listener.
pub async fn serve_hub(
    listener: TcpListener,
    hub: &Hub,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    accept::until(shutdown, listener, &hub.inner).await.map_err(ServeError::Listener)?;
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
    /// The hub did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener cannot be used.
    #[error("cannot listen: {0}")]
    Listener(#[source] io::Error),
}
