//! Why a publish is refused.

/// Why a publish or a disconnect was not admitted. Nothing of it was or will be delivered, but for
/// [`PublishError::Uncertain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The hub is draining or closed; publish to another node.
    #[error("the server is shutting down; publish to another node")]
    Closed,
    /// The data of a publish to a channel is not JSON.
    #[error("the data is not JSON; send one JSON value")]
    NotJson,
    /// The ring holds all it may; try again shortly, or publish more slowly.
    #[error("too many publishes wait for delivery; try again shortly")]
    Overloaded,
    /// The broker cannot be reached, or refuses writes; try again shortly.
    #[error("the broker is not available; try again shortly")]
    Unavailable,
    /// The broker did not answer in time. Whether it was published is not known: this alone of all
    /// errors does not say that nothing was or will be delivered.
    #[error("the broker did not answer; whether it was done is not known")]
    Uncertain,
    /// The payload is over `limits.message_bytes`, or over its namespace's `max_bytes`.
    #[error("the message has {size} bytes; at most {max} are allowed; send less")]
    TooLarge {
        /// Bytes of payload.
        size: usize,
        /// The limit it broke.
        max: usize,
    },
    /// There are `limits.channels` already, and the publish would make one more to be remembered.
    #[error("there are as many channels as limits.channels allows; use fewer")]
    TooManyChannels,
    /// No channel has such a name: it is empty, over `limits.channel_bytes` or has control
    /// characters, or its namespace is not configured.
    #[error("no channel has such a name; see namespace.* and limits.channel_bytes")]
    UnknownChannel,
}
