//! What nodes subscribe to at the broker.

use std::sync::Arc;

use crate::user::UserId;

/// What a node hears.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// What is for everyone, and all of the chat.
    All,
    /// What is for the subscribers of a channel, but for the chat's.
    Channel(Arc<str>),
    /// What this node tells itself; numbered, as it does so by every server of the broker.
    Pulse(u32),
    /// What is for one node: for that run of it.
    Node(Arc<str>),
    /// What is for a user's connections.
    User(UserId),
}
