//! What clients send.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::json;

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

/// [`Subscribe::flag`]: refuse with 112 what cannot be recovered.
pub(crate) const REJECT_UNRECOVERED: u64 = 2;

/// A command as it came; of several methods the first of these counts.
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
}
