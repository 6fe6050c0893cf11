//! A real server at port 0, and peers that speak raw bytes.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests have no public side, and panic when they fail"
)]

// How an embedder's connections come in, and which cannot.
mod adopt;
// The HTTP API: every method, every fault, order, pipelining and keep-alive.
mod api;
// Several commands in one request.
mod api_batch;
// What a backend asks of channels.
mod api_channels;
// What a backend publishes, and where it goes.
mod api_publish;
// What a backend has a user's connections do.
mod api_users;
// The Centrifuge protocol: commands, errors, closes, tokens, recovery, presence.
mod centrifuge;
// What people say to each other, to the byte, and what is answered to nonsense.
mod chat;
mod client;
// Which endpoints are where, once internal ones have an address of their own.
mod doors;
// How a server ends: who is told what, and when it is over.
mod drain;
// Another HTTP server that hands its connections to the hub.
mod embedder;
// What operators and probes ask.
mod endpoints;
// RFC 6455 on the wire: what a peer may not send, and the code it sees for it.
mod frames;
// The HTTP side of becoming a WebSocket: faults, tokens' places, early frames, slow requests.
mod handshake;
// How a dead peer is found, and what counts as life.
mod heartbeat;
// An application that decides what peers may do, and is told who comes and goes.
mod hooks;
// What an embedder publishes through, and what it counts.
mod hub;
// Messages of mebibytes, in one frame and in tens of thousands.
mod large;
// What is too much, and what becomes of it.
mod limits;
mod peer;
// Who is told of whom: joins, leaves, tabs, crowds.
mod presence;
// Peers that take their messages too slowly, and those beside them.
mod slow;
// Channels as Server-Sent Events.
mod sse;
mod support;
// Whose a connection is: what a token must be, and how a bad one is told.
mod tokens;
