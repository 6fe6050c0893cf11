//! What fanfare speaks inside WebSocket messages: parse and serialise, no I/O.

use crate::close::CloseReason;
use crate::message::Message;

pub(crate) mod centrifuge;
pub mod chat;
pub(crate) mod json;
pub(crate) mod sse;

/// One connection's side of a protocol: a message comes in, a reaction goes out.
///
/// It runs on the connection's shard and must not block. [`chat::Chat`] is the built-in one.
pub trait Protocol: Send {
    /// Takes one whole message from the peer and says what to do about it.
    fn receive(&mut self, message: Received<'_>) -> Reaction;
}

/// A whole message from a peer: frames joined, unmasked, and text checked to be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// An opcode 1 message.
    Text(&'a str),
    /// An opcode 2 message.
    Binary(&'a [u8]),
}

/// What to do about a received message. One that is answered or broadcast may be longer than
/// `limits.message_bytes` by the chat protocol's envelope; over that it closes with 1009.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reaction {
    /// Broadcasts to every connection, the sender's own included. Without room in the ring the
    /// connection is read no further until there is, for at most `limits.publish_wait`.
    Broadcast(Message),
    /// Closes the connection after what already waits in its outbox.
    Close(CloseReason),
    /// Nothing.
    Ignore,
    /// Answers an error and counts it: the tenth within ten seconds closes with 3509.
    Refuse(Message),
    /// Answers this connection alone; may overtake broadcasts that are still in the ring.
    Reply(Message),
}
