//! Bytes to frames, for the server's side of a connection.

/// Bounds of one connection's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload in one message, and so in one frame; checked on the claimed length.
    pub message_bytes: usize,
}
