//! What a peer of `GET /sse` is sent: Server-Sent Events (HTML standard, section 9.2).
//!
//! A publication is an event named by its channel, whose id says where the stream then stands on
//! every channel that it brings. All else has no id, so that a peer never counts as received what
//! it was not sent.

use std::sync::Arc;

use bytes::Bytes;

use crate::channel::history::Position;
use crate::channel::publication::Publication;
use crate::close::{CloseReason, UnsubscribeReason};
use crate::protocol::json;

/// A publication as an event; both forms are of one buffer.
#[derive(Debug)]
pub(crate) struct Event {
    /// For a stream of its channel alone.
    pub(crate) with_id: Bytes,
    /// For a stream of several, which puts an id of its own before it.
    pub(crate) bare: Bytes,
}

impl Event {
    pub(crate) fn of(publication: &Publication) -> Self {
        let Publication { channel, data, offset, .. } = publication;
        let mut event = id_line([(*offset > 0).then_some(&publication.position())]);
        let begin = event.len();
        event.push_str("event: ");
        event.push_str(channel);
        event.push_str("\ndata: ");
        json::push_one_line(&mut event, data);
        event.push_str("\n\n");
        let with_id = Bytes::from(event);
        Self { bare: with_id.slice(begin..), with_id }
    }
}

/// A message outside of any channel.
pub(crate) fn message(data: &[u8]) -> String {
    let mut event = String::from("data: ");
    json::push_one_line(&mut event, data);
    event.push_str("\n\n");
    event
}

/// The last word: why the stream ends.
pub(crate) fn disconnect(reason: &CloseReason) -> String {
    let (code, reason) = (reason.code(), json::encode(reason.reason()));
    format!("event: disconnect\ndata: {{\"code\":{code},\"reason\":{reason}}}\n\n")
}

/// What a channel brought since the peer's position is not to be had any more.
pub(crate) fn unrecovered(channel: &str) -> String {
    format!("event: unrecovered\ndata: {{\"channel\":{}}}\n\n", json::encode(channel))
}

/// The server ended a subscription; the stream's other channels go on.
pub(crate) fn unsubscribed(channel: &str, reason: &UnsubscribeReason) -> String {
    let UnsubscribeReason { code, reason } = reason;
    let (channel, reason) = (json::encode(channel), json::encode(reason));
    let data = format!(r#"{{"channel":{channel},"code":{code},"reason":{reason}}}"#);
    format!("event: unsubscribed\ndata: {data}\n\n")
}

/// The line that begins an event: where the stream stands once that event has come. Channels that
/// remember nothing have no position; without any there is no line.
pub(crate) fn id_line<'a>(positions: impl IntoIterator<Item = Option<&'a Position>>) -> String {
    let (mut line, mut is_empty) = (String::from("id: "), true);
    for (index, position) in positions.into_iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        if let Some(Position { offset, epoch }) = position {
            is_empty = false;
            line.push_str(&format!("{epoch}:{offset}"));
        }
    }
    if is_empty {
        return String::new();
    }
    line.push('\n');
    line
}

/// The positions that an id names on so many channels. One that none of these streams gave is
/// nowhere on all of them, so that its peer is told what it lacks.
pub(crate) fn positions(id: &str, channels: usize) -> Vec<Option<Position>> {
    let nowhere = || Some(Position { offset: u64::MAX, epoch: Arc::default() });
    if id.is_empty() {
        return vec![None; channels];
    }
    let position = |text: &str| {
        let (epoch, offset) = text.split_once(':')?;
        // It is told again before it is compared, so no line may break in it.
        let is_word =
            epoch.len() <= EPOCH_MAX && epoch.bytes().all(|it| it.is_ascii_alphanumeric());
        is_word.then_some(Position { offset: offset.parse().ok()?, epoch: epoch.into() })
    };
    let all: Vec<_> = id
        .split(',')
        .map(|text| if text.is_empty() { None } else { position(text).or_else(nowhere) })
        .collect();
    if all.len() == channels { all } else { vec![nowhere(); channels] }
}

/// Bytes of the longest epoch that a peer may name: more than ours have.
const EPOCH_MAX: usize = 32;

/// Tells whoever is between that the stream lives. A lone line, as a comment may stand within an
/// event, and an empty line would end one.
pub(crate) const HEARTBEAT: &str = ":\n";

/// Events that are no channel's, so that no channel of that name can be streamed: an `EventSource`
/// has the first three of its own.
pub(crate) const OWN_EVENTS: [&str; 6] =
    ["error", "message", "open", "disconnect", "unrecovered", "unsubscribed"];

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: u64, epoch: &str) -> Option<Position> {
        Some(Position { offset, epoch: epoch.into() })
    }

    #[test]
    fn a_publication_is_one_event_of_one_line() {
        let at = |position| {
            Publication::new("{\"a\":\r\n\"\\n\"}\n".into()).at(&"news".into(), position)
        };
        let event = Event::of(&at(Position::default()));
        assert_eq!(event.with_id, "event: news\ndata: {\"a\":\"\\n\"}\n\n");
        let event = Event::of(&at(Position { offset: 7, epoch: "e".into() }));
        assert_eq!(event.with_id, "id: e:7\nevent: news\ndata: {\"a\":\"\\n\"}\n\n");
        assert_eq!(event.bare, "event: news\ndata: {\"a\":\"\\n\"}\n\n");
        let of_one_buffer = event.with_id[event.with_id.len() - event.bare.len()..].as_ptr();
        assert_eq!(event.bare.as_ptr(), of_one_buffer);
    }

    #[test]
    fn what_is_of_no_channel_has_no_id() {
        assert_eq!(message(b"[1,\n2]"), "data: [1,2]\n\n");
        assert_eq!(
            disconnect(&CloseReason::SHUTDOWN),
            "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\"}\n\n"
        );
        assert_eq!(unrecovered("a\"b"), "event: unrecovered\ndata: {\"channel\":\"a\\\"b\"}\n\n");
        assert_eq!(
            unsubscribed("a", &UnsubscribeReason::SERVER),
            "event: unsubscribed\n\
             data: {\"channel\":\"a\",\"code\":2000,\"reason\":\"server unsubscribe\"}\n\n"
        );
    }

    #[test]
    fn an_id_names_a_position_on_every_channel_that_has_one() {
        let (a, b) = (position(1, "e"), position(2, "f"));
        assert_eq!(id_line([a.as_ref(), None, b.as_ref()]), "id: e:1,,f:2\n");
        assert_eq!(id_line([None, None]), "");
        assert_eq!(positions("e:1,,f:2", 3), [a, None, b]);
        assert_eq!(positions("", 2), [None, None]);
    }

    #[test]
    fn an_id_of_other_channels_is_a_position_nowhere() {
        let nowhere = position(u64::MAX, "");
        for (id, channels) in [
            ("e:1", 2),
            ("e:1,f:2", 1),
            ("e", 1),
            ("e:x", 1),
            ("e:-1", 1),
            ("e\n\ndata:1", 1),
            (&"e".repeat(33), 1),
        ] {
            let all = positions(id, channels);
            assert_eq!((all.len(), &all[0]), (channels, &nowhere), "{id}");
        }
    }
}
