//! The binary under real clients: other people's libraries, curl, a browser, applications.
//!
//! `scripts/setup` installs what they need; a client's script asserts, and says so by its exit.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests have no public side, and fail by panics"
)]

// Two nodes behind the balancers of examples/.
mod balance;
// The page of a development server, in Chromium.
mod browser;
// The SDKs of Centrifugo, for clients and for backends.
mod centrifuge;
// The same scenarios, by every WebSocket library.
mod clients;
// HTTP by hand.
mod curl;
// The applications under examples/, where a like notifies the author.
mod examples;
// The load tests written for k6.
mod k6;
// Where servers listen that may end and begin again.
mod ports;
// Channels as Server-Sent Events, by curl and in Chromium.
mod sse;
mod support;
