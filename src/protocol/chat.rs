//! The chat protocol of `/ws/chat`: one compact JSON object a message, keys in a fixed order.
//!
//! In: `message`, `ping`. Out: `message`, `pong`, `user_joined`, `user_left`, `count`, `error`, and
//! whatever a backend pushes. docs/protocol.md shows every byte.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Protocol, Reaction, Received, json};
use crate::auth::NAME_MAX;
use crate::message::Message;
use crate::user::{Identity, USER_ID_MAX, UserId};

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

/// An error of the application's, or for want of its answer.
pub(crate) fn denied(code: u32, text: &str) -> Message {
    let text = json::encode(text);
    Message::text(format!(r#"{{"type":"error","code":{code},"message":{text}}}"#))
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

/// Bytes that a message gains on its way out: the keys, and a user and name of which every byte
/// is escaped.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64 + 6 * (USER_ID_MAX + NAME_MAX);

static PONG: LazyLock<Message> = LazyLock::new(|| Message::text(r#"{"type":"pong"}"#));
static UNKNOWN_TYPE: LazyLock<Message> =
    LazyLock::new(|| error(104, "unknown type; use message or ping"));
static BINARY: LazyLock<Message> =
    LazyLock::new(|| error(107, "binary is not understood; send text"));
static NOT_AN_OBJECT: LazyLock<Message> = LazyLock::new(|| error(107, "not a JSON object"));
static TOO_DEEP: LazyLock<Message> =
    LazyLock::new(|| error(107, "JSON nests too deep; use at most 64 levels"));
static OVERLOADED: LazyLock<Message> = LazyLock::new(|| error(111, "too many requests"));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chat() -> Chat {
        Chat::new(&Identity::new(UserId::from(42)).named("Ada"))
    }

    fn text(message: &Message) -> &str {
        std::str::from_utf8(message.payload()).unwrap()
    }

    /// What goes out when `received` comes in, and what was done with it.
    fn react(received: &str) -> (&'static str, String) {
        let (verb, message) = match chat().receive(Received::Text(received)) {
            Reaction::Broadcast(message) => ("broadcast", message),
            Reaction::Refuse(message) => ("refuse", message),
            Reaction::Reply(message) => ("reply", message),
            other => panic!("{other:?}"),
        };
        (verb, text(&message).to_owned())
    }

    fn refused_with(code: u16, received: &str) {
        let (verb, out) = react(received);
        assert_eq!(verb, "refuse", "{received}");
        assert!(
            out.starts_with(&format!(r#"{{"type":"error","code":{code},"message":""#)),
            "{out}"
        );
        assert!(out.len() < 100, "{out}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }

    #[track_caller]
    fn body(sent: &str, out: &str) {
        let expected = format!(r#"{{"type":"message","user_id":42,"name":"Ada","body":{out}}}"#);
        let received = format!(r#"{{"type":"message","body":{sent}}}"#);
        assert_eq!(react(&received), ("broadcast", expected));
    }

    #[test]
    fn message_goes_out_under_the_senders_name() {
        let out = r#"{"type":"message","user_id":42,"name":"Ada","body":"hi"}"#.to_owned();
        for received in [
            r#"{"type":"message","body":"hi"}"#,
            r#" { "body" : "hi" , "type" : "message" } "#,
            r#"{"type":"message","body":"hi","user_id":1,"name":"Eve","count":[]}"#,
            r#"{"\u0074ype":"m\u0065ssage","body":"hi"}"#,
        ] {
            assert_eq!(react(received), ("broadcast", out.clone()));
        }
    }

    #[test]
    fn body_goes_out_verbatim() {
        for json in [
            "\"Å🦀\u{7f}\u{2028}\"",
            r#""\u00c5\ud83e\udd80\/\n""#,
            r#""\ud800""#,
            r#"{"b": 1,"a" :[ 1.0, -0, 1e400, 12345678901234567890 ],"b":2}"#,
            "{\n\t\"type\": \"ping\"\r\n}",
            "null",
            "false",
            "0",
            "[]",
        ] {
            body(json, json);
        }
        body(" \n[1 ]\t", "[1 ]");
    }

    #[test]
    fn missing_body_is_an_empty_text() {
        let out = r#"{"type":"message","user_id":42,"name":"Ada","body":""}"#.to_owned();
        assert_eq!(react(r#"{"type":"message"}"#), ("broadcast", out));
    }

    #[test]
    fn ping_is_answered_and_encoded_once() {
        let pong = |text| match chat().receive(Received::Text(text)) {
            Reaction::Reply(pong) => pong,
            other => panic!("{other:?}"),
        };
        let (first, second) = (pong(r#"{"type":"ping"}"#), pong(r#"{"type":"ping","n":[1]}"#));
        assert_eq!(text(&first), r#"{"type":"pong"}"#);
        assert_eq!(first.frame().as_ptr(), second.frame().as_ptr());
    }

    #[test]
    fn unknown_type_is_error_104() {
        let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(60_000));
        for received in [
            "{}",
            r#"{"body":"hi"}"#,
            r#"{"type":"Message"}"#,
            r#"{"type":"message "}"#,
            r#"{"type":"\ud800"}"#,
            r#"{"type":""}"#,
            r#"{"type":null}"#,
            r#"{"type":1}"#,
            r#"{"type":["message"]}"#,
            r#"{"type":{"message":null}}"#,
            &long,
        ] {
            refused_with(104, received);
        }
    }

    #[test]
    fn what_is_no_json_object_is_error_107() {
        for received in [
            "",
            " ",
            "hi",
            "1",
            "null",
            r#""ping""#,
            "[]",
            r#"["ping",null]"#,
            r#"{"type":"ping""#,
            r#"{"type":"ping"}{}"#,
            r#"{"type":"ping",}"#,
            "{'type':'ping'}",
            r#"{"type":"message","body":NaN}"#,
            r#"{"type":"message","body":01}"#,
            "{\"type\":\"message\",\"body\":\"\n\"}",
            r#"{"type":"ping","type":"message"}"#,
            r#"{"type":"message","body":1,"body":2}"#,
        ] {
            refused_with(107, received);
        }
    }

    #[test]
    fn binary_is_error_107() {
        let Reaction::Refuse(message) = chat().receive(Received::Binary(br#"{"type":"ping"}"#))
        else {
            panic!("binary was taken")
        };
        assert!(text(&message).starts_with(r#"{"type":"error","code":107,"#));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
        let deepest = nested(json::DEPTH_MAX - 1);
        body(&deepest, &deepest);
        let received = |levels| format!(r#"{{"type":"message","body":{}}}"#, nested(levels));
        refused_with(107, &received(json::DEPTH_MAX));
        refused_with(107, &received(30_000));
        refused_with(107, &format!(r#"{{"type":"ping","x":{}}}"#, nested(json::DEPTH_MAX)));
        assert!(text(&TOO_DEEP).contains(&format!(" {} levels", json::DEPTH_MAX)));
    }

    /// The expected texts are what Python's
    /// `json.dumps(…, separators=(",", ":"), ensure_ascii=False)` prints.
    #[test]
    fn wire_is_the_seeds() {
        let user = UserId::parse("ada@example").unwrap();
        let ada = r#"{"type":"user_joined","user_id":"ada@example","name":"Ada","count":2}"#;
        assert_eq!(text(&joined(&user, "Ada", 2)), ada);
        let gone = r#"{"type":"user_left","user_id":-1,"name":"User -1","count":0}"#;
        assert_eq!(text(&left(&UserId::from(-1), "User -1", 0)), gone);
        assert_eq!(text(&count(1234)), r#"{"type":"count","count":1234}"#);
        let full = r#"{"type":"error","code":111,"message":"too many requests"}"#;
        assert_eq!(text(&overloaded()), full);

        let name = "Å \"q\" \\ / \n\t\r\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2028} 🦀 </b>";
        let user = UserId::number((1 << 53) - 1).unwrap();
        let mut chat = Chat::new(&Identity::new(user).named(name));
        let Reaction::Broadcast(message) = chat.receive(Received::Text(r#"{"type":"message"}"#))
        else {
            panic!("message was not broadcast")
        };
        let expected = concat!(
            r#"{"type":"message","user_id":9007199254740991,"name":"Å \"q\" \\ / "#,
            r#"\n\t\r\b\f\u0001\u001f"#,
            "\u{7f}\u{2028}",
            r#" 🦀 </b>","body":""}"#
        );
        assert_eq!(text(&message), expected);
    }

    #[test]
    fn documented_exchanges_are_exact() {
        let lines: Vec<_> = include_str!("../../docs/protocol.md").lines().collect();
        let mut exchanges = 0;
        for pair in lines.windows(2) {
            if let (Some(received), Some(out)) =
                (pair[0].strip_prefix("> "), pair[1].strip_prefix("< "))
            {
                assert_eq!(react(received).1, out);
                exchanges += 1;
            }
        }
        assert_eq!(exchanges, 8);
    }

    #[test]
    fn idle_connection_holds_few_bytes() {
        assert!(size_of::<Chat>() <= 40);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(8, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::vec((".*", inner), 0..8)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_goes_out_verbatim(value in any_json(), pretty: bool) {
            let json = if pretty { format!("{value:#}") } else { value.to_string() };
            body(&json, &json);
        }

        #[test]
        fn any_text_gets_a_valid_answer(
            received in prop_oneof![".*", r#"[\[\]{}",:\\a0 ]*"#, r#"\{"type":"message","body":.*\}"#],
        ) {
            let (_, out) = react(&received);
            prop_assert!(serde_json::from_str::<&RawValue>(&out).is_ok(), "{}", out);
        }
    }
}
