//! The Centrifuge client protocol, version 2, in JSON: what is spoken at `/connection/websocket`.
//!
//! A frame holds commands, or replies and pushes, as JSON objects with one line break between two.
//! Keys that are not known are passed over, and values that are zero or empty are left out, as the
//! protocol's own definition (`client.proto`) has it.

mod command;
mod reply;

pub(crate) use command::*;
pub(crate) use reply::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::json::is_zero;

/// Whose a connection is, as others see it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ClientInfo {
    pub(crate) user: String,
    pub(crate) client: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) conn_info: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chan_info: Option<Box<RawValue>>,
}

impl ClientInfo {
    /// Bytes of it, about.
    pub(crate) fn size(&self) -> usize {
        let infos = [&self.conn_info, &self.chan_info].into_iter().flatten();
        self.user.len() + self.client.len() + infos.map(|info| info.get().len()).sum::<usize>()
    }
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Error {
    pub(crate) code: u32,
    pub(crate) message: &'static str,
    /// Whether the same command may succeed later.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) temporary: bool,
}

impl Error {
    pub(crate) const INTERNAL: Self = Self::temporary(100, "internal server error");
    pub(crate) const UNKNOWN_CHANNEL: Self = Self::lasting(102, "unknown channel");
    pub(crate) const PERMISSION_DENIED: Self = Self::lasting(103, "permission denied");
    pub(crate) const ALREADY_SUBSCRIBED: Self = Self::lasting(105, "already subscribed");
    pub(crate) const LIMIT_EXCEEDED: Self = Self::lasting(106, "limit exceeded");
    pub(crate) const BAD_REQUEST: Self = Self::lasting(107, "bad request");
    pub(crate) const NOT_AVAILABLE: Self = Self::lasting(108, "not available");
    pub(crate) const TOKEN_EXPIRED: Self = Self::lasting(109, "token expired");
    pub(crate) const EXPIRED: Self = Self::lasting(110, "expired");
    pub(crate) const TOO_MANY_REQUESTS: Self = Self::temporary(111, "too many requests");
    pub(crate) const UNRECOVERABLE_POSITION: Self = Self::lasting(112, "unrecoverable position");

    /// Whether it tells of a mistake of who gave the command.
    pub(crate) fn is_of_sender(self) -> bool {
        !self.temporary && !matches!(self.code, 109 | 110 | 112)
    }

    const fn lasting(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: false }
    }

    const fn temporary(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: true }
    }
}

/// Why an application refuses a command.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Denial {
    pub(crate) code: u32,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) temporary: bool,
}
