//! The Centrifuge client protocol, version 2, in JSON: what is spoken at `/connection/websocket`.
//!
//! A frame holds commands, or replies and pushes, as JSON objects with one line break between two.
//! Keys that are not known are passed over, and values that are zero or empty are left out, as the
//! protocol's own definition (`client.proto`) has it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json;
use crate::channel::publication::Publication;

/// What a client sends.
#[derive(Debug)]
pub(crate) enum Command<'a> {
    /// The answer to our ping.
    Pong,
    /// A message that wants no reply.
    Send(Send<'a>),
    /// A request, replied to under its id, which is not 0.
    Request(u32, Request<'a>),
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    Connect(Connect<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(OfChannel<'a>),
    Publish(Publish<'a>),
    Presence(OfChannel<'a>),
    PresenceStats(OfChannel<'a>),
    History(History<'a>),
    Rpc(Rpc<'a>),
    Refresh(Refresh<'a>),
    SubRefresh(SubRefresh<'a>),
}

/// What a client says when it connects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connect<'a> {
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) version: Cow<'a, str>,
    /// Where it was in the channels that the server subscribes it to.
    #[serde(borrow)]
    pub(crate) subs: BTreeMap<Cow<'a, str>, Subscribe<'a>>,
}

/// What a client asks of a subscription; in `connect.subs` without a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subscribe<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
    pub(crate) recover: bool,
    #[serde(borrow)]
    pub(crate) epoch: Cow<'a, str>,
    pub(crate) offset: u64,
    pub(crate) positioned: bool,
    pub(crate) recoverable: bool,
    pub(crate) join_leave: bool,
    /// Bits: see [`REJECT_UNRECOVERED`].
    pub(crate) flag: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OfChannel<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Publish<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct History<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    /// 0: the position alone; negative: as many as the server gives.
    pub(crate) limit: i32,
    #[serde(borrow)]
    pub(crate) since: Option<Since<'a>>,
    pub(crate) reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Since<'a> {
    pub(crate) offset: u64,
    #[serde(borrow)]
    pub(crate) epoch: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rpc<'a> {
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Send<'a> {
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refresh<'a> {
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubRefresh<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
}

/// A command that cannot be understood: whoever sends it speaks another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads the command of one line.
pub(crate) fn parse(line: &str) -> Result<Command<'_>, Malformed> {
    if json::is_too_deep(line) {
        return Err(Malformed);
    }
    let mut raw: Raw<'_> = json::object(line).ok_or(Malformed)?;
    match (raw.id, raw.send.take(), raw.request()) {
        (0, None, None) => Ok(Command::Pong),
        (_, Some(send), None) => Ok(Command::Send(send)),
        (id @ 1.., None, Some(request)) => Ok(Command::Request(id, request)),
        _ => Err(Malformed),
    }
}

/// The lines of a frame: commands, between which there is one line break, and after the last
/// perhaps another.
pub(crate) fn lines(frame: &str) -> impl Iterator<Item = &str> {
    frame.strip_suffix('\n').unwrap_or(frame).split('\n')
}

/// Whose a connection is, as others see it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClientInfo {
    pub(crate) user: String,
    pub(crate) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conn_info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chan_info: Option<Box<RawValue>>,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Error {
    pub(crate) code: u32,
    pub(crate) message: &'static str,
    /// Whether the same command may succeed later.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) temporary: bool,
}

impl Error {
    pub(crate) const INTERNAL: Self = Self::temporary(100, "internal server error");
    pub(crate) const UNAUTHORIZED: Self = Self::lasting(101, "unauthorized");
    pub(crate) const UNKNOWN_CHANNEL: Self = Self::lasting(102, "unknown channel");
    pub(crate) const PERMISSION_DENIED: Self = Self::lasting(103, "permission denied");
    pub(crate) const METHOD_NOT_FOUND: Self = Self::lasting(104, "method not found");
    pub(crate) const ALREADY_SUBSCRIBED: Self = Self::lasting(105, "already subscribed");
    pub(crate) const LIMIT_EXCEEDED: Self = Self::lasting(106, "limit exceeded");
    pub(crate) const BAD_REQUEST: Self = Self::lasting(107, "bad request");
    pub(crate) const NOT_AVAILABLE: Self = Self::lasting(108, "not available");
    pub(crate) const TOKEN_EXPIRED: Self = Self::lasting(109, "token expired");
    pub(crate) const EXPIRED: Self = Self::lasting(110, "expired");
    pub(crate) const TOO_MANY_REQUESTS: Self = Self::temporary(111, "too many requests");
    pub(crate) const UNRECOVERABLE_POSITION: Self = Self::lasting(112, "unrecoverable position");

    const fn lasting(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: false }
    }

    const fn temporary(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: true }
    }
}

/// The reply to a request: `{"id":1,"subscribe":{…}}`.
pub(crate) fn reply(id: u32, method: &str, result: &str) -> String {
    format!(r#"{{"id":{id},"{method}":{result}}}"#)
}

/// The reply to a request that is refused.
pub(crate) fn error(id: u32, error: Error) -> String {
    let error = json::encode(&error);
    format!(r#"{{"id":{id},"error":{error}}}"#)
}

/// A publication as it is pushed to the channel's subscribers.
pub(crate) fn publication_push(publication: &Publication) -> String {
    let mut out = push_of(&publication.channel, "pub");
    write_publication(&mut out, publication);
    out.push_str("}}");
    out
}

/// A publication as recovery and history give it.
pub(crate) fn write_publication(out: &mut String, publication: &Publication) {
    out.push_str(r#"{"data":"#);
    push_one_line(out, &publication.data);
    if let Some(info) = &publication.info {
        out.push_str(r#","info":"#);
        out.push_str(&json::encode(&**info));
    }
    if publication.offset > 0 {
        // Writing to a string does not fail.
        let _ = write!(out, r#","offset":{}"#, publication.offset);
    }
    if !publication.tags.is_empty() {
        out.push_str(r#","tags":"#);
        out.push_str(&json::encode(&publication.tags));
    }
    out.push('}');
}

/// Someone joined (`join`) or left (`leave`) a channel.
pub(crate) fn presence_push(channel: &str, kind: &str, info: &ClientInfo) -> String {
    let info = json::encode(info);
    format!(r#"{}{{"info":{info}}}}}}}"#, push_of(channel, kind))
}

/// The server ended a subscription.
pub(crate) fn unsubscribe_push(channel: &str, code: u32, reason: &str) -> String {
    let reason = json::encode(reason);
    format!(r#"{}{{"code":{code},"reason":{reason}}}}}}}"#, push_of(channel, "unsubscribe"))
}

/// A message outside of any channel.
pub(crate) fn message_push(data: &[u8]) -> String {
    let mut out = String::from(r#"{"push":{"message":{"data":"#);
    push_one_line(&mut out, data);
    out.push_str("}}}");
    out
}

/// The server's ping, which a client answers with the same.
pub(crate) const PING: &str = "{}";

/// [`Subscribe::flag`]: refuse with 112 what cannot be recovered.
pub(crate) const REJECT_UNRECOVERED: u64 = 2;

fn push_of(channel: &str, kind: &str) -> String {
    format!(r#"{{"push":{{"channel":{},"{kind}":"#, json::encode(channel))
}

/// Appends JSON without the line breaks between its tokens, as they end an object in this framing.
fn push_one_line(out: &mut String, data: &[u8]) {
    for part in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        // Whoever let it in has checked that it is JSON, and so UTF-8.
        out.push_str(&String::from_utf8_lossy(part));
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A command as it came: at most one of its methods may be there.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    send: Option<Send<'a>>,
    #[serde(borrow)]
    connect: Option<Connect<'a>>,
    #[serde(borrow)]
    subscribe: Option<Subscribe<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<OfChannel<'a>>,
    #[serde(borrow)]
    publish: Option<Publish<'a>>,
    #[serde(borrow)]
    presence: Option<OfChannel<'a>>,
    #[serde(borrow)]
    presence_stats: Option<OfChannel<'a>>,
    #[serde(borrow)]
    history: Option<History<'a>>,
    #[serde(borrow)]
    rpc: Option<Rpc<'a>>,
    #[serde(borrow)]
    refresh: Option<Refresh<'a>>,
    #[serde(borrow)]
    sub_refresh: Option<SubRefresh<'a>>,
}

impl<'a> Raw<'a> {
    /// The one request, or the first of several.
    fn request(self) -> Option<Request<'a>> {
        let connect = self.connect.map(Request::Connect);
        connect
            .or(self.subscribe.map(Request::Subscribe))
            .or(self.unsubscribe.map(Request::Unsubscribe))
            .or(self.publish.map(Request::Publish))
            .or(self.presence.map(Request::Presence))
            .or(self.presence_stats.map(Request::PresenceStats))
            .or(self.history.map(Request::History))
            .or(self.rpc.map(Request::Rpc))
            .or(self.refresh.map(Request::Refresh))
            .or(self.sub_refresh.map(Request::SubRefresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(data: &str) -> Publication {
        Publication::new(Arc::from("news"), data.to_owned().into())
    }

    #[test]
    fn a_frame_of_several_commands_is_read_line_by_line() {
        let frame = concat!(
            r#"{"id":1,"connect":{"token":"t","name":"js","unknown":[1],"subs":{"a":{"recover":true,"offset":5,"epoch":"x"}}}}"#,
            "\n",
            r#"{"id":2,"subscribe":{"channel":"news","flag":3}}"#,
            "\n{}\n",
        );
        let commands: Vec<_> = lines(frame).map(|line| parse(line).unwrap()).collect();
        let [
            Command::Request(1, Request::Connect(connect)),
            Command::Request(2, Request::Subscribe(subscribe)),
            Command::Pong,
        ] = &commands[..]
        else {
            panic!("{commands:?}")
        };
        assert_eq!((&*connect.token, &*connect.name, connect.subs["a"].offset), ("t", "js", 5));
        assert_eq!(&*subscribe.channel, "news");
        assert_eq!(subscribe.flag & REJECT_UNRECOVERED, REJECT_UNRECOVERED);
    }

    #[test]
    fn what_is_no_command_is_malformed() {
        let deep =
            format!(r#"{{"id":1,"publish":{{"data":{}1{}}}}}"#, "[".repeat(64), "]".repeat(64));
        for line in [
            "",
            " ",
            "[]",
            "1",
            "{",
            r#"{"id":1}"#,
            r#"{"id":1,"ping":{}}"#,
            r#"{"id":-1,"connect":{}}"#,
            r#"{"connect":{}}"#,
            r#"{"id":1,"connect":{"token":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","offset":-1}}"#,
            r#"{"id":1,"send":{},"connect":{}}"#,
            r#"{"id":1,"id":2,"connect":{}}"#,
            "{}{}",
            &deep,
        ] {
            assert_eq!(parse(line).err(), Some(Malformed), "{line}");
        }
    }

    #[test]
    fn escapes_in_names_are_understood() {
        let line = r#"{"id":7,"history":{"channel":"\u0061\"b","limit":-1,"since":{"offset":3,"epoch":"e"}}}"#;
        let Ok(Command::Request(7, Request::History(history))) = parse(line) else { panic!() };
        assert_eq!((&*history.channel, history.limit), ("a\"b", -1));
        assert_eq!(history.since.unwrap().offset, 3);
    }

    #[test]
    fn the_wire_is_centrifuges() {
        assert_eq!(
            publication_push(&publication("{\"a\":\r\n 1}\n").at(13)),
            r#"{"push":{"channel":"news","pub":{"data":{"a": 1},"offset":13}}}"#
        );
        let info = ClientInfo {
            user: "42".to_owned(),
            client: "c".to_owned(),
            conn_info: RawValue::from_string("{}".to_owned()).ok(),
            chan_info: None,
        };
        let mut tagged = publication("1");
        tagged.info = Some(Arc::new(info.clone()));
        tagged.tags.insert("k".to_owned(), "v".to_owned());
        assert_eq!(
            publication_push(&tagged),
            r#"{"push":{"channel":"news","pub":{"data":1,"info":{"user":"42","client":"c","conn_info":{}},"tags":{"k":"v"}}}}"#
        );
        assert_eq!(
            presence_push("news", "join", &info),
            r#"{"push":{"channel":"news","join":{"info":{"user":"42","client":"c","conn_info":{}}}}}"#
        );
        assert_eq!(
            unsubscribe_push("n\"s", 2500, "insufficient state"),
            r#"{"push":{"channel":"n\"s","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        );
        assert_eq!(message_push(b"[1,\n2]"), r#"{"push":{"message":{"data":[1,2]}}}"#);
        assert_eq!(
            error(3, Error::TOO_MANY_REQUESTS),
            r#"{"id":3,"error":{"code":111,"message":"too many requests","temporary":true}}"#
        );
        assert_eq!(reply(4, "publish", "{}"), r#"{"id":4,"publish":{}}"#);
    }
}
