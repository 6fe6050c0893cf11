//! What is said on the connection that hears, as bytes.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// One thing that a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Message(Message),
    Info(Bytes),
    Ping,
    Pong,
    Error(String),
}

/// What came by a subscription; of its headers there is the status alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subscription: u64,
    /// The last token of its subject, if that is a number.
    pub(super) token: Option<u64>,
    pub(super) status: Option<u16>,
    pub(super) payload: Bytes,
}

/// What a server says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    pub(super) version: String,
    #[serde(default)]
    pub(super) tls_required: bool,
    /// What tells it from another server.
    #[serde(default)]
    pub(super) server_id: String,
    /// Bytes of a publish that it takes.
    pub(super) max_payload: usize,
}

/// What a server is told first.
#[derive(Default, Serialize)]
pub(super) struct Login<'a> {
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    pub(super) lang: &'static str,
    pub(super) version: &'static str,
    pub(super) name: &'a str,
    pub(super) protocol: u8,
    pub(super) headers: bool,
    /// Whether it is to say so at once if nothing takes what is published for an answer.
    pub(super) no_responders: bool,
    pub(super) tls_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth_token: Option<&'a str>,
}

/// Takes what is next, once it is there in whole.
pub(super) fn take(buffer: &mut BytesMut) -> io::Result<Option<Said>> {
    loop {
        let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
            return if buffer.len() > MAX_LINE { Err(strange(buffer)) } else { Ok(None) };
        };
        let line = std::str::from_utf8(&buffer[..end]).map_err(|_| strange(buffer))?.trim_end();
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let said = match word.to_ascii_uppercase().as_str() {
            "MSG" | "HMSG" => return message(buffer, end + 1, word.len() == 4),
            "PING" => Some(Said::Ping),
            "PONG" => Some(Said::Pong),
            "INFO" => Some(Said::Info(Bytes::copy_from_slice(rest.as_bytes()))),
            "-ERR" => Some(Said::Error(rest.trim_matches('\'').to_owned())),
            "+OK" => None,
            _ => return Err(strange(line.as_bytes())),
        };
        buffer.advance(end + 1);
        if said.is_some() {
            return Ok(said);
        }
    }
}

/// `MSG <subject> <subscription> [reply] <length>`, or with `HMSG` also the length of the headers before
/// that of it all.
fn message(buffer: &mut BytesMut, begin: usize, has_headers: bool) -> io::Result<Option<Said>> {
    let parsed = || {
        let line = std::str::from_utf8(&buffer[..begin]).ok()?;
        let mut words = line.split_ascii_whitespace().skip(1);
        let token = words.next()?.rsplit('.').next()?.parse().ok();
        let subscription = words.next()?.parse().ok()?;
        let mut lengths = line.split_ascii_whitespace().rev();
        let length: usize = lengths.next()?.parse().ok()?;
        let headers = if has_headers { lengths.next()?.parse().ok()? } else { 0 };
        let message = Message { subscription, token, ..Message::default() };
        (headers <= length && length <= MAX_PAYLOAD).then_some((message, length, headers))
    };
    let (mut message, length, headers) = parsed().ok_or_else(|| strange(&buffer[..begin]))?;
    if buffer.len() < begin + length + LINE_END {
        return Ok(None);
    }
    // A part of the buffer would keep all of it for as long as the payload is kept.
    message.payload = Bytes::copy_from_slice(&buffer[begin + headers..begin + length]);
    message.status = status(&buffer[begin..begin + headers]);
    buffer.advance(begin + length + LINE_END);
    Ok(Some(Said::Message(message)))
}

/// What stands in the first line of headers, behind their version.
fn status(headers: &[u8]) -> Option<u16> {
    let line = headers.strip_prefix(HEADERS.as_bytes())?.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// `SUB <subject> <subscription>`.
pub(super) fn subscribe(output: &mut BytesMut, subject: &str, subscription: u64) {
    output.extend_from_slice(format!("SUB {subject} {subscription}\r\n").as_bytes());
}

/// `UNSUB <subscription>`.
pub(super) fn unsubscribe(output: &mut BytesMut, subscription: u64) {
    output.extend_from_slice(format!("UNSUB {subscription}\r\n").as_bytes());
}

/// `PUB <subject> <length>` and a payload.
pub(super) fn publish(output: &mut BytesMut, subject: &str, payload: &[u8]) {
    output.extend_from_slice(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
    output.extend_from_slice(payload);
    output.extend_from_slice(b"\r\n");
}

/// `HPUB <subject> <reply> <length of headers> <length of all>`, headers, each with the end of its line, and a
/// payload.
pub(super) fn ask(
    output: &mut BytesMut,
    subject: &str,
    reply: &str,
    headers: &str,
    payload: &[u8],
) {
    let (length, all) = (headers_len(headers), headers_len(headers) + payload.len());
    let line = format!("HPUB {subject} {reply} {length} {all}\r\n{HEADERS}\r\n{headers}\r\n");
    output.extend_from_slice(line.as_bytes());
    output.extend_from_slice(payload);
    output.extend_from_slice(b"\r\n");
}

/// Bytes that such headers come to.
pub(super) fn headers_len(headers: &str) -> usize {
    HEADERS.len() + LINE_END + headers.len() + LINE_END
}

fn strange(bytes: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let text = format!("{text:?} is nothing that a server of NATS says");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The longest line but for messages: a server's word of itself lists all of its cluster.
const MAX_LINE: usize = 1 << 20;

/// No server can be set to take more.
const MAX_PAYLOAD: usize = i32::MAX as usize;

const LINE_END: usize = 2;

/// What headers begin with.
const HEADERS: &str = "NATS/1.0";

/// The status of what answers for a subject to which nobody has subscribed.
pub(super) const NO_RESPONDERS: u16 = 503;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Vec<Said> {
        // Each byte comes alone, so that everything is seen in parts.
        let (mut buffer, mut said) = (BytesMut::new(), Vec::new());
        for byte in text {
            buffer.extend_from_slice(&[*byte]);
            said.extend(take(&mut buffer).unwrap());
        }
        assert!(buffer.is_empty());
        said
    }

    #[test]
    fn messages_are_taken_in_whole_and_without_headers() {
        let text = b"MSG a.b 7 5\r\nhe\r\no\r\nHMSG a 8 reply 12 14\r\nNATS/1.0\r\n\r\nhi\r\nMSG a 9 0\r\n\r\n";
        let message = |subscription, payload: &'static [u8]| {
            Said::Message(Message { subscription, payload: payload.into(), ..Message::default() })
        };
        assert_eq!(all(text), [message(7, b"he\r\no"), message(8, b"hi"), message(9, b"")]);
    }

    #[test]
    fn answers_have_the_number_of_what_they_answer_and_perhaps_a_status() {
        let text =
            b"MSG _INBOX.x.12 1 2\r\n{}\r\nHMSG _INBOX.x.13 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let payload = Bytes::from_static(b"{}");
        let taken = Message { subscription: 1, token: Some(12), status: None, payload };
        let (status, payload) = (Some(NO_RESPONDERS), Bytes::new());
        let not_taken = Message { subscription: 1, token: Some(13), status, payload };
        assert_eq!(all(text), [Said::Message(taken), Said::Message(not_taken)]);
    }

    #[test]
    fn lengths_of_what_is_asked_are_those_of_its_headers_and_of_all() {
        let mut output = BytesMut::new();
        ask(&mut output, "a", "b", "Nats-Msg-Id: x\r\n", b"hello");
        let text = "HPUB a b 28 33\r\nNATS/1.0\r\nNats-Msg-Id: x\r\n\r\nhello\r\n";
        assert_eq!(output, text);
    }

    #[test]
    fn what_else_a_server_says_is_known() {
        let text = b"INFO {\"a\":1} \r\nPING\r\n+OK\r\nPONG\r\n-ERR 'Slow Consumer'\r\n";
        let error = Said::Error("Slow Consumer".to_owned());
        let info = Said::Info(Bytes::from_static(b"{\"a\":1}"));
        assert_eq!(all(text), [info, Said::Ping, Said::Pong, error]);
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_taken_in_parts_as_in_whole(
            said in prop::collection::vec(
                "(H?MSG [a ]{0,3}[0-9]{0,20}( [0-9]{1,3}){0,2}|PING|INFO .?|-ERR|.{0,3})\r?\n.{0,9}",
                0..5,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = said.concat().into_bytes();
            let take_all = |parts: &[&[u8]]| {
                let (mut buffer, mut said) = (BytesMut::new(), Vec::new());
                for part in parts {
                    buffer.extend_from_slice(part);
                    loop {
                        match take(&mut buffer) {
                            Ok(Some(one)) => said.push(one),
                            Ok(None) => break,
                            Err(_) => return (said, true),
                        }
                    }
                }
                (said, false)
            };
            let (front, back) = text.split_at(cut.index(text.len() + 1));
            prop_assert_eq!(take_all(&[front, back]), take_all(&[&text]));
        }
    }

    #[test]
    fn what_is_no_server_of_nats_is_found() {
        let too_long = format!("MSG a 1 {}\r\nx", usize::MAX);
        for text in ["HTTP/1.1 400 Bad Request\r\n", "MSG a b c\r\n", "HMSG a 1 9 2\r\n", &too_long]
        {
            assert!(take(&mut text.as_bytes().into()).is_err(), "{text}");
        }
    }
}
