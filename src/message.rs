//! What a publisher sends, and its wire encodings, each made at most once.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::frame;
use crate::protocol::{centrifuge, json, sse};

/// How a connection's peer has messages framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// A payload is a WebSocket message: the chat protocol, and those of embedders.
    Raw,
    /// A payload is the data of a push of the Centrifuge protocol.
    Centrifuge,
    /// A payload is the data of a Server-Sent Event.
    Sse,
}

impl Encoding {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Centrifuge, Self::Sse];
}

/// A payload on its way to connections.
///
/// Cloning is cheap and shares the encodings: however many connections receive a message, and
/// however often it is published, the WebSocket frame is built once.
///
/// ```
/// use fanfare::Message;
///
/// let message = Message::text(r#"{"type":"notification","event":"post_liked"}"#);
/// assert_eq!(message.len(), 44);
/// ```
#[derive(Clone)]
pub struct Message {
    shared: Arc<Shared>,
}

struct Shared {
    payload: Bytes,
    opcode: frame::Opcode,
    json: OnceLock<Bytes>,
    frame: OnceLock<Bytes>,
    centrifuge: OnceLock<Bytes>,
    sse: OnceLock<Bytes>,
}

impl Message {
    /// A text message; JSON in every protocol that fanfare speaks. Other text reaches peers of the
    /// Centrifuge protocol and of streams as a JSON string.
    pub fn text(payload: impl Into<String>) -> Self {
        Self::new(frame::Opcode::Text, Bytes::from(payload.into().into_bytes()))
    }

    /// A text message of bytes that are known to be UTF-8.
    pub(crate) fn text_of(payload: Bytes) -> Self {
        Self::new(frame::Opcode::Text, payload)
    }

    /// A binary message. The chat protocol never sends one; an embedder's own protocol may. Peers that
    /// are given JSON have it as text is given, with U+FFFD for what is not UTF-8.
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self::new(frame::Opcode::Binary, payload.into())
    }

    /// The payload as it was given.
    pub fn payload(&self) -> &Bytes {
        &self.shared.payload
    }

    /// Bytes of payload, without any framing.
    pub fn len(&self) -> usize {
        self.shared.payload.len()
    }

    /// Whether the payload is empty, which RFC 6455 allows.
    pub fn is_empty(&self) -> bool {
        self.shared.payload.is_empty()
    }

    pub(crate) fn is_binary(&self) -> bool {
        self.shared.opcode == frame::Opcode::Binary
    }

    /// The payload if it is JSON, else as a JSON string.
    pub(crate) fn json(&self) -> &Bytes {
        let Shared { payload, json, .. } = &*self.shared;
        json.get_or_init(|| match serde_json::from_slice::<&RawValue>(payload) {
            Ok(_) => payload.clone(),
            Err(_) => json::encode(&String::from_utf8_lossy(payload)).into(),
        })
    }

    /// The message as one unmasked, final RFC 6455 frame.
    pub(crate) fn frame(&self) -> &Bytes {
        let Shared { payload, opcode, frame, .. } = &*self.shared;
        frame.get_or_init(|| frame::encode(*opcode, payload))
    }

    /// The message as one frame of an encoding.
    pub(crate) fn encoded(&self, encoding: Encoding) -> &Bytes {
        match encoding {
            Encoding::Raw => self.frame(),
            Encoding::Centrifuge => self.shared.centrifuge.get_or_init(|| {
                let push = centrifuge::message_push(self.json());
                frame::encode(frame::Opcode::Text, push.as_bytes())
            }),
            Encoding::Sse => self.shared.sse.get_or_init(|| sse::message(self.json()).into()),
        }
    }

    fn new(opcode: frame::Opcode, payload: Bytes) -> Self {
        let (json, frame, centrifuge, sse) = Default::default();
        Self { shared: Arc::new(Shared { payload, opcode, json, frame, centrifuge, sse }) }
    }
}

impl From<String> for Message {
    fn from(payload: String) -> Self {
        Self::text(payload)
    }
}

impl From<&str> for Message {
    fn from(payload: &str) -> Self {
        Self::text(payload)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { payload, opcode, .. } = &*self.shared;
        f.debug_struct("Message").field("opcode", opcode).field("len", &payload.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_shares_one_encoding() {
        let message = Message::text("hello");
        let clone = message.clone();
        assert_eq!(message.frame().as_ptr(), clone.frame().as_ptr());
        assert_eq!(&message.frame()[..], b"\x81\x05hello");
    }

    #[test]
    fn what_is_no_json_is_a_string_where_json_is_due() {
        let pushed = |message: Message| message.encoded(Encoding::Centrifuge).slice(2..);
        assert_eq!(pushed(Message::text("[1, 2]")), r#"{"push":{"message":{"data":[1, 2]}}}"#);
        assert_eq!(
            pushed(Message::text("say \"x\"\n")),
            r#"{"push":{"message":{"data":"say \"x\"\n"}}}"#
        );
        assert_eq!(
            pushed(Message::binary(&b"\xff1"[..])),
            "{\"push\":{\"message\":{\"data\":\"\u{fffd}1\"}}}"
        );
        assert_eq!(Message::text("hi").encoded(Encoding::Sse), "data: \"hi\"\n\n");
    }
}
