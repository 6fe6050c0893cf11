//! Why JetStream does not do something, and what follows from that.

use std::fmt;
use std::future::Future;
use std::time::Instant;

use async_nats::jetstream::{self, ErrorCode};
use async_nats::{RequestError, RequestErrorKind};

use super::PATIENCE;
use crate::broker::engine::{Failure, Refusal};

/// Why something is not done.
#[derive(Debug)]
pub(super) enum JetStreamError {
    /// Another one changed it meanwhile.
    Conflict,
    /// There is no stream for it.
    NoStream,
    /// The server says so.
    Refused(String),
    /// Whether it is done is not known.
    Lost(String),
}

/// An error after which nothing is known.
pub(super) fn lost(error: &impl fmt::Display) -> JetStreamError {
    JetStreamError::Lost(error.to_string())
}

/// Waits for no longer than for one request.
pub(super) async fn patiently<T>(
    doing: impl Future<Output = Result<T, JetStreamError>>,
) -> Result<T, JetStreamError> {
    let done = tokio::time::timeout(PATIENCE, doing).await;
    done.unwrap_or_else(|_| {
        Err(JetStreamError::Lost("nats-server does not answer within 3 s".to_owned()))
    })
}

/// Whether another one changed it meanwhile, and there is time to look again: whoever always comes late is
/// refused, and loses nothing else by it.
pub(super) fn should_retry<T>(done: &Result<T, JetStreamError>, begun: Instant) -> bool {
    matches!(done, Err(JetStreamError::Conflict)) && begun.elapsed() < PATIENCE / 2
}

impl JetStreamError {
    /// What follows for one publish or change: it is refused, unless nothing is known of it.
    pub(super) fn refusal(self) -> Result<Refusal, Failure> {
        match self {
            error @ Self::Lost(_) => Err(error.into()),
            error => Ok(Refusal::new(error.to_string())),
        }
    }
}

impl From<jetstream::Error> for JetStreamError {
    fn from(error: jetstream::Error) -> Self {
        match error.error_code() {
            // The latter: what is to be deleted is gone.
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
            | ErrorCode::STREAM_MESSAGE_DELETE_FAILED
            | ErrorCode::SEQUENCE_NOT_FOUND
            | ErrorCode::NO_MESSAGE_FOUND => Self::Conflict,
            ErrorCode::STREAM_NOT_FOUND => Self::NoStream,
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<RequestError> for JetStreamError {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::NoResponders => Self::NoStream,
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                Self::Refused(error.to_string())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<JetStreamError> for Failure {
    fn from(error: JetStreamError) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for JetStreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("too many nodes change it at once"),
            Self::NoStream => f.write_str("its stream is gone"),
            Self::Refused(error) | Self::Lost(error) => f.write_str(error),
        }
    }
}
