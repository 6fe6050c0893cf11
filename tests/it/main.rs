//! A real server at port 0, and peers that speak raw bytes.

#![allow(missing_docs, unreachable_pub, reason = "tests have no public side")]

// RFC 6455 on the wire: what a peer may not send, and the code it sees for it.
mod frames;
// The HTTP side of becoming a WebSocket: faults, tokens' places, early frames, slow requests.
mod handshake;
mod peer;
mod support;
// Whose a connection is: what a token must be, and how a bad one is told.
mod tokens;
