//! What nodes tell each other, as bytes: what it is, what goes with it as JSON, and the payload as it
//! was given.
//!
//! `<offset>:<epoch>:<kind><length of meta>:<meta><payload>`. The broker puts the first two in front
//! where it gives the position in a stream, so that it need not look into the rest; elsewhere they are
//! `0::`. All nodes of a prefix must speak the same version of it, which its topics name.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::survey::{Question, Reply};
use crate::channel::history::Position;
use crate::channel::post::Change;
use crate::channel::publication::Publication;
use crate::hub::order::{Act, Whom};
use crate::message::Message;
use crate::protocol::centrifuge::ClientInfo;
use crate::protocol::json::{encode, is_zero};
use crate::ring::Audience;
use crate::user::UserId;

/// What a node is told.
#[derive(Debug)]
pub(crate) enum Envelope {
    /// For the subscribers of a channel.
    Publication(Publication),
    /// For all, and for the subscribers of the chat's channel if it has a position there.
    Message(Message, Audience, Position),
    /// For a user's connections.
    Unicast(UserId, Message),
    /// A channel is to forget what it remembers.
    Clear,
    /// Someone came to a channel, or left it.
    Change(Change, ClientInfo),
    /// Something for a user's connections to do.
    Order(Box<RemoteOrder>),
    /// Something for every node to answer.
    Question(Question),
    /// An answer to that, for the node that asked.
    Reply(Reply),
    /// What a node tells itself, to see that it hears.
    Pulse(u64),
    /// Bodies that were sent together, each to be [read](Self::read).
    Several(Vec<Bytes>),
}

/// An order as it was given, and by whom.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RemoteOrder {
    /// The run of the node that gives it.
    pub(crate) uid: String,
    pub(crate) number: u64,
    pub(crate) user: UserId,
    pub(crate) whom: Whom,
    pub(crate) act: Act,
}

impl Envelope {
    /// Reads one from a topic or a stream; `None` if it is none.
    pub(crate) fn parse(bytes: &Bytes) -> Option<Self> {
        let (offset, rest) = split(bytes, b':')?;
        let (epoch, body) = split(rest, b':')?;
        let epoch = Arc::from(std::str::from_utf8(epoch).ok()?);
        Self::read(&bytes.slice_ref(body), Position { offset: number(offset)?, epoch })
    }

    /// Reads what a stream has at a position.
    pub(crate) fn read(body: &Bytes, position: Position) -> Option<Self> {
        let kind = *body.first()?;
        let (length, rest) = split(&body[1..], b':')?;
        let (meta, payload) = rest.split_at_checked(number(length)?)?;
        let payload = body.slice_ref(payload);
        Some(match kind {
            PUBLICATION => Self::Publication(publication(meta, payload, position)?),
            TO_ALL => Self::Message(message(meta, payload)?, Audience::Everyone, position),
            TO_CHAT => Self::Message(message(meta, payload)?, Audience::Chat, position),
            TO_USER => {
                let Address { user, binary } = serde_json::from_slice(meta).ok()?;
                Self::Unicast(user, message_of(binary, payload)?)
            }
            CLEAR => Self::Clear,
            JOIN => Self::Change(Change::Join, serde_json::from_slice(meta).ok()?),
            LEAVE => Self::Change(Change::Leave, serde_json::from_slice(meta).ok()?),
            ORDER => Self::Order(serde_json::from_slice(meta).ok()?),
            QUESTION => Self::Question(serde_json::from_slice(meta).ok()?),
            REPLY => Self::Reply(serde_json::from_slice(meta).ok()?),
            PULSE => Self::Pulse(serde_json::from_slice(meta).ok()?),
            SEVERAL => Self::Several(several(meta, payload)?),
            _ => return None,
        })
    }

    /// The publication that it comes to on a channel with a stream.
    pub(crate) fn into_publication(self) -> Option<Publication> {
        match self {
            Self::Publication(publication) => Some(publication),
            Self::Message(message, _, position) => Some(spoken(&message, position)),
            _ => None,
        }
    }
}

/// What a message for all is to the subscribers of the chat's channel.
pub(crate) fn spoken(message: &Message, position: Position) -> Publication {
    let mut publication = Publication::new(message.json().clone());
    (publication.offset, publication.epoch) = (position.offset, position.epoch);
    publication
}

/// The body of a publication.
pub(crate) fn publication_body(
    data: &[u8],
    info: Option<&ClientInfo>,
    tags: &BTreeMap<String, String>,
) -> Bytes {
    if info.is_none() && tags.is_empty() {
        return [PLAIN_PUBLICATION, data].concat().into();
    }
    let meta = encode(&PublicationMeta { info: info.cloned(), tags: tags.clone() });
    body(PUBLICATION, &meta, data)
}

/// The body of a message for all.
pub(crate) fn message_body(message: &Message, audience: Audience) -> Bytes {
    let kind = if audience == Audience::Everyone { TO_ALL } else { TO_CHAT };
    body(kind, if message.is_binary() { "true" } else { "" }, message.payload())
}

/// The body of a message for a user.
pub(crate) fn unicast_body(user: &UserId, message: &Message) -> Bytes {
    let meta = encode(&Address { user: user.clone(), binary: message.is_binary() });
    body(TO_USER, &meta, message.payload())
}

/// The body of an order.
pub(crate) fn order_body(order: &RemoteOrder) -> Bytes {
    body(ORDER, &encode(order), b"")
}

/// The body of what says that someone came or went.
pub(crate) fn change_body(change: Change, info: &ClientInfo) -> Bytes {
    let kind = if change == Change::Join { JOIN } else { LEAVE };
    body(kind, &encode(info), b"")
}

/// The body of something for every node to answer.
pub(crate) fn question_body(question: &Question) -> Bytes {
    body(QUESTION, &encode(question), b"")
}

/// The body of an answer.
pub(crate) fn reply_body(reply: &Reply) -> Bytes {
    body(REPLY, &encode(reply), b"")
}

/// The body of what has a channel forget.
pub(crate) fn clear_body() -> Bytes {
    body(CLEAR, "", b"")
}

/// The body of what a node tells itself.
pub(crate) fn pulse_body(number: u64) -> Bytes {
    body(PULSE, &number.to_string(), b"")
}

/// A body as a topic carries it that has no position in a stream.
pub(crate) fn placeless(body: &[u8]) -> Bytes {
    [PLACELESS.as_bytes(), body].concat().into()
}

/// The same of bodies that go together.
pub(crate) fn placeless_together<'a>(
    bodies: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    let mut first = bodies.clone();
    if let (1, Some(only)) = (first.len(), first.next()) {
        return placeless(only);
    }
    let mut lengths = String::new();
    for body in bodies.clone() {
        lengths += if lengths.is_empty() { "" } else { "," };
        lengths += itoa::Buffer::new().format(body.len());
    }
    joined(PLACELESS, SEVERAL, &lengths, bodies.map(|body| &body[..]))
}

/// A position that is none.
const PLACELESS: &str = "0::";

const PUBLICATION: u8 = b'p';
const TO_ALL: u8 = b'a';
const TO_CHAT: u8 = b'c';
const TO_USER: u8 = b'u';
const CLEAR: u8 = b'x';
const JOIN: u8 = b'j';
const LEAVE: u8 = b'l';
const ORDER: u8 = b'o';
const QUESTION: u8 = b'q';
const REPLY: u8 = b'r';
const PULSE: u8 = b'i';
const SEVERAL: u8 = b's';

/// More than nodes send together: each of several costs memory and a turn.
const SEVERAL_BYTES: usize = 128 << 10;

/// What comes before the data of a publication that nothing goes with.
const PLAIN_PUBLICATION: &[u8] = b"p0:";

/// `<kind>0:`.
const HEAD_MIN: usize = 3;

#[derive(Default, Deserialize, Serialize)]
struct PublicationMeta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
struct Address {
    user: UserId,
    #[serde(default, skip_serializing_if = "is_zero")]
    binary: bool,
}

fn body(kind: u8, meta: &str, payload: &[u8]) -> Bytes {
    joined("", kind, meta, std::iter::once(payload))
}

fn joined<'a>(
    position: &str,
    kind: u8,
    meta: &str,
    payload: impl Iterator<Item = &'a [u8]> + Clone,
) -> Bytes {
    let head = format!("{position}{}{}:{meta}", char::from(kind), meta.len());
    let length = payload.clone().map(<[u8]>::len).sum::<usize>();
    let mut body = Vec::with_capacity(head.len() + length);
    body.extend_from_slice(head.as_bytes());
    payload.for_each(|part| body.extend_from_slice(part));
    body.into()
}

/// What lies before and after the first such byte.
fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}

fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn several(lengths: &[u8], mut payload: Bytes) -> Option<Vec<Bytes>> {
    if lengths.len() + payload.len() > SEVERAL_BYTES {
        return None;
    }
    let lengths = std::str::from_utf8(lengths).ok()?;
    // No body is shorter than its head, whatever the lengths say.
    let count = (1 + lengths.matches(',').count()).min(payload.len() / HEAD_MIN + 1);
    let mut bodies = Vec::with_capacity(count);
    for length in lengths.split(',') {
        let length = length.parse().ok().filter(|length| *length <= payload.len())?;
        bodies.push(payload.split_to(length));
    }
    Some(bodies)
}

fn publication(meta: &[u8], data: Bytes, position: Position) -> Option<Publication> {
    // It is sent as text, whatever has written it.
    simdutf8::basic::from_utf8(&data).ok()?;
    let mut publication = Publication::new(data);
    if !meta.is_empty() {
        let PublicationMeta { info, tags } = serde_json::from_slice(meta).ok()?;
        (publication.info, publication.tags) = (info.map(Arc::new), tags);
    }
    (publication.offset, publication.epoch) = (position.offset, position.epoch);
    Some(publication)
}

fn message(meta: &[u8], payload: Bytes) -> Option<Message> {
    message_of(!meta.is_empty(), payload)
}

fn message_of(is_binary: bool, payload: Bytes) -> Option<Message> {
    if is_binary {
        return Some(Message::binary(payload));
    }
    simdutf8::basic::from_utf8(&payload).is_ok().then(|| Message::text_of(payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info() -> ClientInfo {
        let (user, client) = ("42".to_owned(), "c".to_owned());
        ClientInfo { user, client, conn_info: None, chan_info: None }
    }

    fn body_of(Publication { data, info, tags, .. }: &Publication) -> Bytes {
        publication_body(data, info.as_deref(), tags)
    }

    fn parse(front: &str, body: &Bytes) -> Option<Envelope> {
        Envelope::parse(&[front.as_bytes(), body].concat().into())
    }

    #[test]
    fn a_publication_comes_as_it_went() {
        let mut publication = Publication::new(r#"{"a":":"}"#.into());
        let plain = body_of(&publication);
        assert_eq!(&plain[..], br#"p0:{"a":":"}"#);
        publication.info = Some(Arc::new(info()));
        publication.tags.insert("k".to_owned(), "v".to_owned());
        for (body, tags) in [(plain, 0), (body_of(&publication), 1)] {
            let Some(Envelope::Publication(read)) = parse("7:e:", &body) else { panic!() };
            assert_eq!((read.offset, &*read.epoch, &read.data), (7, "e", &publication.data));
            assert_eq!((read.tags.len(), read.info.is_some()), (tags, tags == 1));
        }
    }

    #[test]
    fn a_message_comes_as_it_went() {
        for message in [Message::text("say \"hi\""), Message::binary(&b"\xff:"[..])] {
            let user = UserId::from(42);
            let body = message_body(&message, Audience::Everyone);
            let Some(Envelope::Message(all, Audience::Everyone, _)) = parse("0::", &body) else {
                panic!()
            };
            let Some(Envelope::Unicast(to, one)) = parse("0::", &unicast_body(&user, &message))
            else {
                panic!()
            };
            assert_eq!((all.frame(), one.frame(), to), (message.frame(), message.frame(), user));
        }
    }

    #[test]
    fn several_come_as_they_went_and_one_goes_alone() {
        let bodies = ["1", "", "[2,3]"].map(|data| body_of(&Publication::new(data.into())));
        assert_eq!(placeless_together(bodies[..1].iter()), placeless(&bodies[0]));
        let together = placeless_together(bodies.iter());
        assert_eq!(&together[..], b"0::s5:4,3,8p0:1p0:p0:[2,3]");
        let Some(Envelope::Several(read)) = Envelope::parse(&together) else { panic!() };
        assert_eq!(read, bodies);
        let many = vec![bodies[1].clone(); SEVERAL_BYTES];
        assert!(Envelope::parse(&placeless_together(many.iter())).is_none());
    }

    proptest! {
        /// Another program may have written it.
        #[test]
        fn whatever_is_heard_is_read_or_passed_over(
            front in "[0-9:]{0,6}[paucsxjloqri][0-9]{0,3}:",
            rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = [front.as_bytes(), &rest].concat().into();
            drop(Envelope::parse(&bytes));
            drop(Envelope::read(&bytes, Position::default()));
        }
    }

    #[test]
    fn what_is_none_is_passed_over() {
        for text in [
            "",
            "1",
            "1:e",
            "x:e:p0:1",
            "1:e:p9:1",
            "1:e:?0:1",
            "1:e:p0:\u{fffd}",
            "0::u0:",
            "0::s1:9p0:1",
            "0::s0:",
        ] {
            let bytes = text.replace('\u{fffd}', "\u{80}").into_bytes();
            let bytes: Bytes =
                if text.contains('\u{fffd}') { b"1:e:p0:\xff"[..].into() } else { bytes.into() };
            assert!(Envelope::parse(&bytes).is_none(), "{text}");
        }
    }
}
