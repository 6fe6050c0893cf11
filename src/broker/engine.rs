//! What a broker must be able to do, and what becomes of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::feed::Feed;
pub(crate) use super::redis::Session;
pub(super) use super::redis::{ConnectError, Door};
use crate::channel::history::Position;

/// A session, and what it hears.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) feed: Feed,
}

/// A stream to be read.
pub(super) struct Read {
    pub(super) channel: Arc<str>,
    /// From where; from its beginning if nothing of it is known.
    pub(super) from: Option<Position>,
    /// How long the stream remembers each publication.
    pub(super) ttl: Duration,
}

/// A channel with a stream, whose place must not be forgotten.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) channel: Arc<str>,
    /// How long the stream remembers each publication.
    pub(super) ttl: Duration,
}

/// What was read of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Where it stands.
    pub(super) position: Position,
    /// What it has from the place that was asked for on, in order: with what stands there itself, if that
    /// is not forgotten yet, and perhaps not all that there is.
    pub(super) entries: VecDeque<Entry>,
}

/// One publication of a stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) body: Bytes,
    pub(super) age: Duration,
}

/// Why a session is of no more use.
#[derive(Debug)]
pub(super) struct Failure(String);

/// Why one command was refused, as the broker says it.
#[derive(Debug)]
pub(super) struct Refusal(String);

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Refusal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
