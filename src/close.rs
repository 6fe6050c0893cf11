//! Why a connection ended: every close code that fanfare sends or counts, in one table.
//!
//! Codes below 3000 are RFC 6455's (section 7.4.1). The others are those of the Centrifuge
//! protocol, since its clients know which mean *come back*: 3000–3499 and 4000–4499 ask a client
//! to reconnect, 3500–3999 and 4500–4999 tell it not to.

use std::borrow::Cow;
use std::fmt;

/// A close code with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    code: u16,
    reason: Cow<'static, str>,
    is_eviction: bool,
}

impl CloseReason {
    /// 1000: the peer closed, or an embedder is done with it.
    pub const NORMAL: Self = Self::known(1000, "");
    /// 1002: a frame breaks RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self::known(1002, "protocol error");
    /// 1007: a text message is not UTF-8 (RFC 6455 section 8.1).
    pub const INVALID_UTF8: Self = Self::known(1007, "invalid utf-8");
    /// 1008: the chat endpoint's answer to a bad or missing token.
    pub const INVALID_TOKEN_CHAT: Self = Self::known(1008, "Invalid token");
    /// 1009: a frame or message is over `limits.message_bytes`.
    pub const MESSAGE_TOO_BIG: Self = Self::known(1009, "message too big");
    /// 3001: the server drains; come back.
    pub const SHUTDOWN: Self = Self::known(3001, "shutdown");
    /// 3004: the application that is asked gives no answer; come back.
    pub const SERVER_ERROR: Self = Self::known(3004, "server error");
    /// 3005: the token expired, or the time is over that a hook or a backend set; come back with a new
    /// one.
    pub const EXPIRED: Self = Self::known(3005, "expired");
    /// 3006: the time of a subscription that the server made is over; come back.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::known(3006, "subscription expired");
    /// 3008: a slow consumer: its outbox passed `limits.outbox_bytes`, `limits.outbox_age` or
    /// its share of `limits.memory`.
    pub const SLOW: Self = Self::evicting(3008, "slow");
    /// 3009: writing to the socket failed; counted, and sent to no one.
    pub const WRITE_ERROR: Self = Self::known(3009, "write error");
    /// 3010: a subscription that the server made lacks something; come back and recover.
    pub const INSUFFICIENT_STATE: Self = Self::known(3010, "insufficient state");
    /// 3012: no sign of life within `heartbeat.timeout` of a ping.
    pub const NO_PONG: Self = Self::evicting(3012, "no pong");
    /// 3500: the token of a `connect` or `refresh` command is invalid; do not come back with it.
    pub const INVALID_TOKEN: Self = Self::known(3500, "invalid token");
    /// 3501: a message was begun and not finished within `limits.message_timeout`, or is no command of
    /// the Centrifuge protocol in its place.
    pub const BAD_REQUEST: Self = Self::known(3501, "bad request");
    /// 3502: a peer of the Centrifuge protocol did not say who it is in time.
    pub const STALE: Self = Self::known(3502, "stale");
    /// 3503: a backend disconnected the user, or the application does not let it in; do not come back.
    pub const FORCE_DISCONNECT: Self = Self::known(3503, "force disconnect");
    /// 3505: a token asks for more subscriptions than a connection or its channels take.
    pub const CHANNEL_LIMIT: Self = Self::known(3505, "channel limit");
    /// 3509: ten errors within ten seconds.
    pub const TOO_MANY_ERRORS: Self = Self::known(3509, "too many errors");

    /// A code and reason of an embedder's or a backend's choosing.
    ///
    /// # Errors
    ///
    /// The code must be 1000 or lie in 3000–4999, the ranges an application may send (RFC 6455
    /// section 7.4); the reason holds at most [`REASON_MAX`] bytes, since a control frame holds 125.
    pub fn new(code: u16, reason: impl Into<String>) -> Result<Self, InvalidCloseReason> {
        let reason = reason.into();
        if code != 1000 && !(3000..5000).contains(&code) {
            return Err(InvalidCloseReason::Code(code));
        }
        if reason.len() > REASON_MAX {
            return Err(InvalidCloseReason::Reason(reason.len()));
        }
        Ok(Self { code, reason: Cow::Owned(reason), is_eviction: false })
    }

    /// The answer to a peer's Close: the same code, or none if it gave none.
    pub(crate) fn answer(code: Option<u16>) -> Self {
        Self::known(code.unwrap_or(NO_CODE), "")
    }

    /// The number on the wire.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The text on the wire; may be empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether a close for this reason drops what waits in the outbox, as the peer does not read.
    pub(crate) fn is_eviction(&self) -> bool {
        self.is_eviction
    }

    const fn known(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason), is_eviction: false }
    }

    const fn evicting(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason), is_eviction: true }
    }
}

/// Why a subscription ended whose connection goes on: the codes of the Centrifuge protocol, of which
/// those from 2500 on ask a client to subscribe again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnsubscribeReason {
    pub(crate) code: u32,
    pub(crate) reason: &'static str,
}

impl UnsubscribeReason {
    /// 2000: a backend ended it.
    pub(crate) const SERVER: Self = Self { code: 2000, reason: "server unsubscribe" };
    /// 2500: it lacks something.
    pub(crate) const INSUFFICIENT_STATE: Self = Self { code: 2500, reason: "insufficient state" };
    /// 2501: its token expired.
    pub(crate) const EXPIRED: Self = Self { code: 2501, reason: "subscription expired" };
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// Why [`CloseReason::new`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCloseReason {
    /// A code that an application may not send.
    #[error("close code {0} is not allowed; use 1000 or 3000 to 4999")]
    Code(u16),
    /// Bytes of a reason that does not fit a control frame.
    #[error("close reason of {0} bytes is too long; use at most 123")]
    Reason(usize),
}

/// Stands for a Close frame without a code, and is never sent (RFC 6455 section 7.4.1).
pub(crate) const NO_CODE: u16 = 1005;

/// Bytes of the longest reason: a control frame's 125 (RFC 6455 section 5.5) less the code's 2.
pub const REASON_MAX: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_row_in_the_documentation() {
        let documented = include_str!("../docs/protocol.md");
        let known = include_str!("close.rs").lines().filter_map(|line| {
            let line = line.strip_prefix("    pub const ")?.strip_suffix(");")?;
            line.split_once('(')?.1.split_once(", ")
        });
        let mut rows = 0;
        for (code, reason) in known {
            let reason = reason.trim_matches('"');
            let reason = if reason.is_empty() { String::new() } else { format!("`{reason}` ") };
            assert!(documented.contains(&format!("\n| {code} | {reason}|")), "{code} {reason}");
            rows += 1;
        }
        assert!(rows > 15);
    }

    #[test]
    fn applications_may_not_send_protocol_codes() {
        for code in [0, 999, 1001, 1002, 1005, 1006, 1015, 2999, 5000] {
            assert_eq!(CloseReason::new(code, ""), Err(InvalidCloseReason::Code(code)));
        }
        for code in [1000, 3000, 4999] {
            assert_eq!(CloseReason::new(code, "").map(|reason| reason.code()), Ok(code));
        }
    }

    #[test]
    fn reason_must_fit_a_control_frame() {
        assert!(CloseReason::new(4000, "r".repeat(REASON_MAX)).is_ok());
        let long = CloseReason::new(4000, "r".repeat(REASON_MAX + 1));
        assert_eq!(long, Err(InvalidCloseReason::Reason(124)));
    }
}
