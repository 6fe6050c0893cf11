//! Errors, by who is at fault and at which operation.

/// Why a publish or a disconnect was not admitted. Nothing of it was or will be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The hub is draining or closed; publish to another node.
    #[error("the server is shutting down; publish to another node")]
    Closed,
    /// The ring holds all it may; try again shortly, or publish more slowly.
    #[error("too many publishes wait for delivery; try again shortly")]
    Overloaded,
    /// The payload is over `limits.message_bytes`.
    #[error("the message has {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes of payload.
        size: usize,
        /// The limit it broke.
        max: usize,
    },
}
