//! A lock-free, high-throughput WebSocket broadcast engine.

pub mod auth;
pub mod close;
pub mod config;
pub mod error;
pub mod frame;
pub mod message;
pub mod protocol;
pub mod user;

pub use close::CloseReason;
pub use config::Config;
pub use error::PublishError;
pub use message::Message;
pub use user::{Identity, UserId};
