//! The chat protocol of `/ws/chat`: one compact JSON object a message, keys in a fixed order.
//!
//! In: `message`, `ping`. Out: `message`, `pong`, `user_joined`, `user_left`, `count`, `error`, and
//! whatever a backend pushes. docs/protocol.md shows every byte.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Protocol, Reaction, Received, json};
use crate::message::Message;
use crate::user::{Identity, UserId};

/// One connection's side of the chat protocol: who speaks, and nothing else.
#[derive(Clone, Debug)]
pub struct Chat {
    user: UserId,
    name: Arc<str>,
}

impl Chat {
    /// Speaks for one identity: what the peer says goes out under its user and name.
    pub fn new(identity: &Identity) -> Self {
        Self { user: identity.user.clone(), name: identity.name.clone() }
    }
}

impl Protocol for Chat {
    fn receive(&mut self, message: Received<'_>) -> Reaction {
        let Received::Text(text) = message else { return Reaction::Refuse(BINARY.clone()) };
        if json::is_too_deep(text) {
            return Reaction::Refuse(TOO_DEEP.clone());
        }
        let Some(Incoming { kind, body }) = json::object(text) else {
            return Reaction::Refuse(NOT_AN_OBJECT.clone());
        };
        match kind.and_then(json::text).as_deref() {
            Some("message") => {
                let body = body.map_or(r#""""#, RawValue::get);
                Reaction::Broadcast(about("message", &self.user, &self.name, "body", body))
            }
            Some("ping") => Reaction::Reply(PONG.clone()),
            _ => Reaction::Refuse(UNKNOWN_TYPE.clone()),
        }
    }
}

/// Tells that a user's first connection came; `count` users are now present.
pub(crate) fn joined(user: &UserId, name: &str, count: usize) -> Message {
    about("user_joined", user, name, "count", &count.to_string())
}

/// Tells that a user's last connection went; `count` users are still present.
pub(crate) fn left(user: &UserId, name: &str, count: usize) -> Message {
    about("user_left", user, name, "count", &count.to_string())
}

/// Tells how many users are present, in place of joins and leaves when those are too many.
pub(crate) fn count(count: usize) -> Message {
    Message::text(format!(r#"{{"type":"count","count":{count}}}"#))
}

/// Error 111: the ring had no room for this connection's message in `limits.publish_wait`.
pub(crate) fn overloaded() -> Message {
    OVERLOADED.clone()
}

/// A message in. Other keys are ignored, as the seed did.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
}

/// Keeps a `null`, which `Option` alone would take for a missing key.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// A message about a user; `value` is JSON and goes out verbatim.
fn about(kind: &str, user: &UserId, name: &str, key: &str, value: &str) -> Message {
    let (user, name) = (json::encode(user), json::encode(name));
    // Joined in one step, so that the payload is allocated once and at its exact size.
    let parts = [
        r#"{"type":""#,
        kind,
        r#"","user_id":"#,
        &user,
        r#","name":"#,
        &name,
        r#",""#,
        key,
        r#"":"#,
        value,
        "}",
    ];
    Message::text(parts.concat())
}

fn error(code: u16, text: &str) -> Message {
    Message::text(format!(r#"{{"type":"error","code":{code},"message":"{text}"}}"#))
}

static PONG: LazyLock<Message> = LazyLock::new(|| Message::text(r#"{"type":"pong"}"#));
static UNKNOWN_TYPE: LazyLock<Message> =
    LazyLock::new(|| error(104, "unknown type; use message or ping"));
static BINARY: LazyLock<Message> =
    LazyLock::new(|| error(107, "binary is not understood; send text"));
static NOT_AN_OBJECT: LazyLock<Message> = LazyLock::new(|| error(107, "not a JSON object"));
static TOO_DEEP: LazyLock<Message> =
    LazyLock::new(|| error(107, "JSON nests too deep; use at most 64 levels"));
static OVERLOADED: LazyLock<Message> = LazyLock::new(|| error(111, "too many requests"));
