//! The Centrifuge client protocol, as far as the load tester speaks it.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::channels::Channels;
use crate::failure::Failure;
use crate::mark::Mark;

/// Where a subscriber is in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

/// The commands of one frame: `connect`, which is replied to under [`CONNECT`].
pub(crate) fn connect(token: &str) -> String {
    format!(r#"{{"id":{CONNECT},"connect":{{"token":"{token}","name":"loadtest"}}}}"#)
}

/// Appends `subscribe` for each channel, to recover what came after its position if it has one. The
/// nth is replied to under [`SUBSCRIBE`] + n. Returns how many there are.
pub(crate) fn subscribe<'a>(
    frame: &mut String,
    channels: impl Iterator<Item = (u32, Option<&'a Position>)>,
) -> u32 {
    let mut count = 0;
    for (channel, from) in channels {
        let id = SUBSCRIBE + count;
        count += 1;
        let name = Channels::name(channel);
        let recover = from.map(|Position { offset, epoch }| {
            format!(r#","recover":true,"offset":{offset},"epoch":"{epoch}""#)
        });
        let recover = recover.unwrap_or_default();
        if !frame.is_empty() {
            frame.push('\n');
        }
        frame.push_str(&format!(r#"{{"id":{id},"subscribe":{{"channel":"{name}"{recover}}}}}"#));
    }
    count
}

/// A reply or a push.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) id: u32,
    pub(crate) error: Option<Refusal>,
    pub(crate) subscribe: Option<Subscribed>,
    pub(crate) push: Option<Push>,
}

/// Why a command was refused.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Refusal {
    /// The failure that it is where nothing should be refused.
    pub(crate) fn as_failure(&self) -> Failure {
        let Self { code, message } = self;
        match *code {
            PERMISSION_DENIED => Failure::Setup(
                "the server lets nobody subscribe (error 103); \
                 set its channel.subscribe = anyone"
                    .to_owned(),
            ),
            code => Failure::Run(format!("the server refuses with error {code}: {message}")),
        }
    }
}

/// What a new subscriber is told.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subscribed {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
    /// Whether it asked for what it missed.
    pub(crate) was_recovering: bool,
    /// Whether this is all of it.
    pub(crate) recovered: bool,
    pub(crate) publications: Vec<Publication>,
}

impl Subscribed {
    /// Where the subscriber is; fails if the server does not let it come back there.
    pub(crate) fn position(self) -> Result<Position, Failure> {
        if self.epoch.is_empty() {
            return Err(Failure::Setup(
                "the server recovers nothing; \
                 set its channel.history_size and channel.recovery = stream"
                    .to_owned(),
            ));
        }
        Ok(Position { offset: self.offset, epoch: self.epoch })
    }
}

/// What comes without being asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Push {
    pub(crate) channel: String,
    #[serde(rename = "pub")]
    pub(crate) publication: Option<Publication>,
    pub(crate) unsubscribe: Option<Unsubscribed>,
}

/// One of ours, on a channel.
#[derive(Debug, Deserialize)]
pub(crate) struct Publication {
    data: Data,
    #[serde(default)]
    pub(crate) offset: u64,
}

impl Publication {
    pub(crate) fn mark(&self) -> Mark {
        self.data.body
    }
}

#[derive(Debug, Deserialize)]
struct Data {
    body: Mark,
}

/// The server ended a subscription.
#[derive(Debug, Deserialize)]
pub(crate) struct Unsubscribed {
    pub(crate) code: u32,
}

/// Everything that a frame says, in order.
pub(crate) fn read(frame: &[u8]) -> serde_json::Result<Vec<Said>> {
    frame.split(|byte| *byte == b'\n').map(serde_json::from_slice).collect()
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Body;
        impl de::Visitor<'_> for Body {
            type Value = Mark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a body that begins with a mark")
            }

            fn visit_str<E: de::Error>(self, body: &str) -> Result<Mark, E> {
                let mark = Mark::read(body.as_bytes(), 0);
                mark.ok_or_else(|| E::invalid_value(de::Unexpected::Str(body), &self))
            }
        }
        deserializer.deserialize_str(Body)
    }
}

/// The code of an error that refuses a publish under this id, with the number of the publish.
pub(crate) fn publish_error(frame: &[u8]) -> Option<(u32, u32)> {
    let (id, rest) = number(frame.strip_prefix(br#"{"id":"#)?)?;
    let (code, _) = number(rest.strip_prefix(br#","error":{"code":"#)?)?;
    Some((code, id.checked_sub(PUBLISH)?))
}

/// The number that `text` begins with, and what comes after it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    Some((str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// The server's ping, and the answer to it.
pub(crate) const PING: &[u8] = b"{}";

/// The error for a subscription that needs a token.
const PERMISSION_DENIED: u32 = 103;

/// The id of `connect`.
pub(crate) const CONNECT: u32 = 1;

/// The id of the first `subscribe`.
pub(crate) const SUBSCRIBE: u32 = 2;

/// The id of the first `publish`; those of all others have as many digits.
pub(crate) const PUBLISH: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lines_of_one_frame() {
        let mut frame = connect("t");
        let at = Position { offset: 7, epoch: "e".to_owned() };
        subscribe(&mut frame, [(3, None), (12, Some(&at))].into_iter());
        assert_eq!(
            frame,
            concat!(
                r#"{"id":1,"connect":{"token":"t","name":"loadtest"}}"#,
                "\n",
                r#"{"id":2,"subscribe":{"channel":"load00003"}}"#,
                "\n",
                r#"{"id":3,"subscribe":{"channel":"load00012","recover":true,"offset":7,"epoch":"e"}}"#,
            )
        );
    }

    #[test]
    fn what_a_frame_says_is_read_in_order() {
        let mark = "~ff~000100000002000000000000000300..";
        let frame = format!(
            concat!(
                r#"{{"id":1,"connect":{{"client":"c","ping":25}}}}"#,
                "\n",
                r#"{{"id":2,"subscribe":{{"epoch":"e","offset":9,"was_recovering":true,"publications":[{{"data":{{"body":"{0}"}},"offset":9}}]}}}}"#,
                "\n",
                r#"{{"push":{{"channel":"load00001","pub":{{"data":{{"body":"{0}"}}}}}}}}"#,
                "\n",
                r#"{{"push":{{"channel":"load00001","unsubscribe":{{"code":2500,"reason":"r"}}}}}}"#,
                "\n",
                r#"{{"id":3,"error":{{"code":103,"message":"permission denied"}}}}"#,
            ),
            mark
        );
        let said = read(frame.as_bytes()).unwrap();
        let mark = Mark { publisher: 1, sequence: 2, due: 3 };
        let subscribed = said[1].subscribe.as_ref().unwrap();
        assert_eq!((subscribed.offset, &*subscribed.epoch), (9, "e"));
        assert_eq!((subscribed.was_recovering, subscribed.recovered), (true, false));
        assert_eq!(subscribed.publications[0].mark(), mark);
        let [push, ended] = [2, 3].map(|n| said[n].push.as_ref().unwrap());
        assert_eq!(push.publication.as_ref().unwrap().mark(), mark);
        assert_eq!(ended.unsubscribe.as_ref().unwrap().code, 2500);
        assert_eq!((said[4].id, said[4].error.as_ref().unwrap().code), (3, 103));
    }

    #[test]
    fn a_body_without_a_mark_is_not_ours() {
        let foreign = br#"{"push":{"channel":"a","pub":{"data":{"body":"hello"}}}}"#;
        assert!(read(foreign).is_err());
    }

    #[test]
    fn a_refused_publish_is_known_by_its_number() {
        let refused = br#"{"id":1000000042,"error":{"code":111,"message":"too many requests"}}"#;
        assert_eq!(publish_error(refused), Some((111, 42)));
        assert_eq!(publish_error(br#"{"id":1000000042,"publish":{}}"#), None);
        assert_eq!(publish_error(br#"{"id":2,"error":{"code":103}}"#), None);
        assert_eq!(publish_error(br#"{"type":"pong"}"#), None);
    }
}
