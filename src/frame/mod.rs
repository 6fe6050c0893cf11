//! RFC 6455 frames, sans-IO: bytes in, frames out, and the reverse.
//!
//! Encoding and unmasking are fastwebsockets'; the decoder is ours, because a public server must
//! refuse what that crate's reader lets pass.

mod decode;
mod encode;
mod header;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, Item, Limits, Violation};
pub(crate) use encode::{close, encode};

/// What a frame carries (RFC 6455 section 5.2), continuation aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
    /// The end of the connection, with an optional code and reason.
    Close,
    /// A request for a [`Opcode::Pong`] with the same payload.
    Ping,
    /// The answer to a [`Opcode::Ping`], or unsolicited.
    Pong,
}

impl Opcode {
    /// Whether such frames come between those of a message (RFC 6455 section 5.5).
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Bytes of the longest control payload (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: u8 = 125;
