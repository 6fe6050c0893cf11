//! A lock-free, high-throughput broadcast engine: one message in, every connected WebSocket peer
//! gets it, at the cost the kernel alone would charge.
//!
//! fanfare knows which connections belong to which user, sends to all, to one user (every tab) or to
//! a channel, and evicts peers that are dead or cannot keep up. This crate is the engine and the
//! server around it; the binary is a command line on top.
//!
//! ```text
//!  publisher: a peer | POST /api/… | Hub::broadcast, Hub::publish, Hub::send_to_user
//!      │  admission: room in the ring is reserved, or the publish waits or is refused
//!      ▼
//!  channel, if it is to one: the publication takes its offset, and is remembered
//!      ▼
//!  ring: tokio's broadcast channel, one receiver a shard
//!      ▼
//!  pump: one a shard; joins what is ready into one burst
//!      ▼
//!  outbox: one a connection; bounded in bytes and age      full or too old? Close 3008
//!      ▼
//!  writer: one task a connection; one send() for all that waits
//! ```
//!
//! # Layout
//!
//! - [`Hub`]: what an embedder holds. [`serve`]: the whole server on a bound listener.
//! - [`config`]: every setting. [`auth`]: tokens. [`user`], [`message`], [`close`], [`error`]: values.
//! - [`hook`]: how an application decides what peers may do, and is told who comes and goes.
//! - [`protocol`]: what is spoken inside WebSocket messages. [`frame`]: RFC 6455, sans-IO.
//! - [`server`]: HTTP, the handshake, the API, and the door for embedders.
//! - The engine, private: `hub`, `ring`, `registry`, `shard`, `inbox`, `connection`, `presence`,
//!   `reader`, `heartbeat`, and the hot path `pump`, `outbox`, `writer`.
//! - Channels, private: `channel`, what a node has of them; `subscription`, what a connection and a
//!   shard have; `client` and `stream`, who speaks the Centrifuge protocol and Server-Sent Events.
//! - Several nodes, private: `broker`, how they meet. [`Receipt`]: what becomes of a publish then.
//!
//! # Example
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use fanfare::config::Secret;
//! use fanfare::{Config, Hub, UserId, server};
//!
//! let mut config = Config::default();
//! config.auth.hmac_secret = Some(Secret::new("a secret of at least thirty-two bytes"));
//! let hub = Hub::start(config)?;
//!
//! // Anywhere in the program, on any thread; outside of a task `wait()` for it:
//! let reached = hub.send_to_user(&UserId::from(42), r#"{"type":"notification"}"#).await?;
//! assert_eq!(reached, 0);
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let shutdown = async { /* a signal */ };
//! server::serve_hub(listener, &hub, shutdown).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod auth;
pub mod close;
pub mod config;
pub mod error;
pub mod frame;
pub mod hook;
#[doc(hidden)]
pub mod internals;
pub mod message;
pub mod protocol;
pub mod server;
pub mod user;

mod agenda;
mod broker;
mod channel;
mod client;
mod clock;
mod connection;
mod heartbeat;
mod hub;
mod inbox;
mod lock;
mod metrics;
mod outbox;
mod presence;
mod pump;
mod reader;
mod receipt;
mod registry;
mod ring;
mod shard;
mod socket;
mod stream;
mod subscription;
mod writer;

pub use close::CloseReason;
pub use config::Config;
pub use error::PublishError;
pub use hub::publish::Published;
pub use hub::{Hub, StartError};
pub use message::Message;
pub use receipt::Receipt;
pub use server::{ServeError, serve};
pub use user::{Identity, UserId};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
