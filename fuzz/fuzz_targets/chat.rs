//! The chat protocol on any message: it never panics, what goes out is JSON, and a body is the
//! very bytes that came in.
//!
//! The first byte says whether the rest is text; the user's name is its begin, so that names are
//! odd too.

#![no_main]

use std::collections::BTreeMap;

use fanfare::protocol::chat::Chat;
use fanfare::protocol::{Protocol, Reaction, Received};
use fanfare::{Identity, Message, UserId};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let text = std::str::from_utf8(rest).ok().filter(|_| kind != 0);
    let name: String = text.unwrap_or_default().chars().take(NAME_CHARS).collect();
    let mut chat = Chat::new(&Identity::new(UserId::from(42)).named(name.as_str()));
    let received = text.map_or(Received::Binary(rest), Received::Text);
    match chat.receive(received) {
        Reaction::Broadcast(message) => broadcast(&message, text.unwrap(), &name),
        Reaction::Refuse(message) => error(&message),
        Reaction::Reply(message) => assert_eq!(&message.payload()[..], br#"{"type":"pong"}"#),
        other => panic!("{other:?}"),
    }
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Out<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    user_id: i64,
    name: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

fn broadcast(message: &Message, received: &str, name: &str) {
    let out: Out<'_> = serde_json::from_slice(message.payload()).unwrap();
    assert_eq!((out.kind, out.user_id, out.name.as_str()), ("message", 42, name));
    let received: BTreeMap<String, &RawValue> = serde_json::from_str(received).unwrap();
    let body = received.get("body").map_or(r#""""#, |body| body.get());
    assert_eq!(out.body.get(), body);
    assert!(message.len() <= body.len() + ENVELOPE_BYTES_MAX + 6 * name.len());
}

fn error(message: &Message) {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Refusal<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        code: u16,
        #[serde(rename = "message")]
        _message: &'a str,
    }
    let refusal: Refusal<'_> = serde_json::from_slice(message.payload()).unwrap();
    assert_eq!(refusal.kind, "error");
    assert!(matches!(refusal.code, 104 | 107));
}

const NAME_CHARS: usize = 8;

/// Keys and user; a name grows sixfold at most.
const ENVELOPE_BYTES_MAX: usize = 64;
