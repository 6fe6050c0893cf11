//! What goes wrong with servers, and what to do about it.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::broker::engine::Failure;

/// Why a node does not come in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("broker.redis.url: {0}; use redis://host:6379 or, with TLS, rediss://host:6379")]
    Url(String),
    #[error("broker.redis.ca_file: {0}")]
    Ca(String),
    #[error("broker.redis.url: {address}: {error}{advice}")]
    Refused { address: String, error: String, advice: &'static str },
    #[error("broker.redis.url: {address} is version {version}; use {least} or later")]
    Version { address: String, version: String, least: &'static str },
    #[error("broker.redis.url: {0}: the cluster has no server for some slots; see CLUSTER INFO")]
    Slots(String),
}

impl ConnectError {
    /// What a server, or the way to it, says.
    pub(super) fn refused(address: &str, error: &RedisError) -> Self {
        let text = told(error);
        let advice = if error.is_connection_refusal() {
            "; is the server running there?"
        } else if error.kind() == ErrorKind::AuthenticationFailed || is_about_login(&text) {
            "; check the user in the URL, and broker.redis.password"
        } else if error.is_timeout() {
            "; nothing answers there within 3 s: is it a server of Redis, and TLS where it is rediss?"
        } else if error.kind() == ErrorKind::Parse {
            "; is it a server of Redis?"
        } else if is_about_rights(&text) {
            RIGHTS
        } else if text.contains("cluster support disabled") {
            "; set broker.redis.mode to single"
        } else {
            ""
        };
        Self::Refused { address: address.to_owned(), error: text, advice }
    }

    /// What servers say once they have let this node in.
    pub(super) fn said(url: &str, text: &str) -> Self {
        let advice = if is_about_rights(text) { RIGHTS } else { "" };
        Self::Refused { address: url.to_owned(), error: text.replace('\n', " "), advice }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::new(error.to_string())
    }
}

/// Whether an error says that the server is not the right one any more, or does not know what it must.
pub(super) fn ends_session(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::NoScript
        )
    )
}

/// An error in one line.
pub(super) fn told(error: &RedisError) -> String {
    error.to_string().replace('\n', " ")
}

fn is_about_login(text: &str) -> bool {
    ["NOAUTH", "WRONGPASS", "AUTH"].iter().any(|code| text.contains(code))
}

fn is_about_rights(text: &str) -> bool {
    ["NOPERM", "NoPerm"].iter().any(|code| text.contains(code))
}

const RIGHTS: &str =
    "; the user needs the commands of docs/brokers.md, and ~<broker.prefix>:* &<broker.prefix>:*";
