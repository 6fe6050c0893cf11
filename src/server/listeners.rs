//! Where a server listens, and which endpoints are behind which door.

use std::net::{SocketAddr, TcpListener};

use super::ServeError;
use crate::config;

/// The bound listeners of a server. One alone offers every endpoint.
///
/// ```
/// use fanfare::config::Config;
/// use fanfare::server::Listeners;
///
/// let mut config = Config::default();
/// config.server.bind = "127.0.0.1:0".parse()?;
/// config.server.internal_bind = Some("127.0.0.1:0".parse()?);
/// let listeners = Listeners::bind(&config.server)?;
/// assert!(listeners.internal.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listeners {
    /// Where peers connect.
    pub public: TcpListener,
    /// Where the API, metrics, health and the page are; then they are not at `public`.
    pub internal: Option<TcpListener>,
}

impl Listeners {
    /// Binds `server.bind` and, if it is set, `server.internal_bind`.
    ///
    /// # Errors
    ///
    /// [`ServeError::Bind`]: the system refuses one of them.
    pub fn bind(server: &config::Server) -> Result<Self, ServeError> {
        // In this order, so that where both are one address it is the second that is to change.
        let public = bind(server.bind, "server.bind (--bind)")?;
        let internal = server.internal_bind.map(|address| bind(address, "server.internal_bind"));
        Ok(Self { public, internal: internal.transpose()? })
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self { public: listener, internal: None }
    }
}

/// Which listener a socket came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The only one there is.
    Only,
    /// That of peers.
    Public,
    /// That of backends and operators.
    Internal,
}

fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|source| ServeError::Bind { address, key, source })
}
