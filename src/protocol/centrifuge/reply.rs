//! What clients are sent.

use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::ClientInfo;
use crate::channel::history::Position;
use crate::channel::publication::Publication;
use crate::close::UnsubscribeReason;
use crate::protocol::json::{self, is_zero};
use crate::subscription::Entered;

/// The reply to a request: `{"id":1,"subscribe":{…}}`.
pub(crate) fn reply(id: u32, method: &str, result: &str) -> String {
    format!(r#"{{"id":{id},"{method}":{result}}}"#)
}

/// The reply to a request that is refused.
pub(crate) fn error(id: u32, error: &impl Serialize) -> String {
    let error = json::encode(error);
    format!(r#"{{"id":{id},"error":{error}}}"#)
}

/// A publication as it is pushed to the channel's subscribers.
pub(crate) fn publication_push(publication: &Publication) -> String {
    let mut out = String::with_capacity(publication.size() + PUSH_BYTES);
    write_push_of(&mut out, &publication.channel, "pub");
    write_publication(&mut out, publication);
    out.push_str("}}");
    out
}

/// A publication as recovery and history give it.
pub(crate) fn write_publication(out: &mut String, publication: &Publication) {
    out.push_str(r#"{"data":"#);
    json::push_one_line(out, &publication.data);
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
pub(crate) fn unsubscribe_push(channel: &str, reason: &UnsubscribeReason) -> String {
    let UnsubscribeReason { code, reason } = reason;
    let reason = json::encode(reason);
    format!(r#"{}{{"code":{code},"reason":{reason}}}}}}}"#, push_of(channel, "unsubscribe"))
}

/// The server subscribed a peer; what that missed follows as publications, one a line. The data
/// holds no line break.
pub(crate) fn subscribe_push(channel: &str, entered: &Entered, data: Option<&RawValue>) -> String {
    #[derive(Serialize)]
    struct Subscribe<'a> {
        #[serde(skip_serializing_if = "is_zero")]
        recoverable: bool,
        #[serde(skip_serializing_if = "is_zero")]
        positioned: bool,
        #[serde(skip_serializing_if = "str::is_empty")]
        epoch: &'a str,
        #[serde(skip_serializing_if = "is_zero")]
        offset: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    let Entered { position, is_recoverable, recovered } = entered;
    let (epoch, offset) =
        if *is_recoverable { (&*position.epoch, position.offset) } else { ("", 0) };
    let (recoverable, positioned) = (*is_recoverable, *is_recoverable);
    let subscribe = json::encode(&Subscribe { recoverable, positioned, epoch, offset, data });
    let mut out = format!("{}{subscribe}}}}}", push_of(channel, "subscribe"));
    for publication in recovered.iter().flatten().flatten() {
        out.push('\n');
        out.push_str(&publication_push(publication));
    }
    out
}

/// The server set when a connection expires, in so many seconds, if at all.
pub(crate) fn refresh_push(ttl: Option<u64>) -> String {
    let expires = ttl.map(|ttl| format!(r#""expires":true,"ttl":{ttl}"#)).unwrap_or_default();
    format!(r#"{{"push":{{"refresh":{{{expires}}}}}}}"#)
}

/// A message outside of any channel.
pub(crate) fn message_push(data: &[u8]) -> String {
    let mut out = String::from(r#"{"push":{"message":{"data":"#);
    json::push_one_line(&mut out, data);
    out.push_str("}}}");
    out
}

/// Publications as a list.
pub(crate) fn publications(publications: &[Arc<Publication>]) -> String {
    let mut list = String::from("[");
    for publication in publications {
        if list.len() > 1 {
            list.push(',');
        }
        write_publication(&mut list, publication);
    }
    list.push(']');
    list
}

/// A page of a channel's history.
pub(crate) fn history_result(page: &[Arc<Publication>], position: &Position) -> String {
    let (publications, epoch) = (publications(page), json::encode(&*position.epoch));
    format!(r#"{{"publications":{publications},"epoch":{epoch},"offset":{}}}"#, position.offset)
}

/// Who is on a channel.
pub(crate) fn presence_result<'a>(present: impl Iterator<Item = &'a Arc<ClientInfo>>) -> String {
    let member = |info: &Arc<ClientInfo>| {
        format!("{}:{}", json::encode(&info.client), json::encode(&**info))
    };
    let members: Vec<_> = present.map(member).collect();
    format!(r#"{{"presence":{{{}}}}}"#, members.join(","))
}

/// How many connections and users are on a channel.
pub(crate) fn presence_stats_result((clients, users): (usize, usize)) -> String {
    format!(r#"{{"num_clients":{clients},"num_users":{users}}}"#)
}

fn push_of(channel: &str, kind: &str) -> String {
    let mut out = String::new();
    write_push_of(&mut out, channel, kind);
    out
}

fn write_push_of(out: &mut String, channel: &str, kind: &str) {
    out.push_str(r#"{"push":{"channel":"#);
    json::push_text(out, channel);
    for part in [",\"", kind, "\":"] {
        out.push_str(part);
    }
}

/// The server's ping, which a client answers with the same.
pub(crate) const PING: &str = "{}";

/// Bytes of a publication's push besides what was published, as a rule; a longer one grows.
const PUSH_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::Error;
    use super::*;

    fn publication(data: &str, offset: u64) -> Publication {
        let position = Position { offset, epoch: "e".into() };
        Publication::new(data.to_owned().into()).at(&"news".into(), position)
    }

    #[test]
    fn the_wire_is_centrifuges() {
        assert_eq!(
            publication_push(&publication("{\"a\":\r\n 1}\n", 13)),
            r#"{"push":{"channel":"news","pub":{"data":{"a": 1},"offset":13}}}"#
        );
        let info = ClientInfo {
            user: "42".to_owned(),
            client: "c".to_owned(),
            conn_info: RawValue::from_string("{}".to_owned()).ok(),
            chan_info: None,
        };
        let mut tagged = publication("1", 0);
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
            unsubscribe_push("n\"s", &UnsubscribeReason::INSUFFICIENT_STATE),
            r#"{"push":{"channel":"n\"s","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        );
        let entered = Entered {
            position: Position { offset: 2, epoch: "e".into() },
            is_recoverable: true,
            recovered: Some(Ok(vec![Arc::new(publication("1", 0))])),
        };
        let data = RawValue::from_string("{}".to_owned()).unwrap();
        assert_eq!(
            subscribe_push("news", &entered, Some(&data)),
            concat!(
                r#"{"push":{"channel":"news","subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":2,"data":{}}}}"#,
                "\n",
                r#"{"push":{"channel":"news","pub":{"data":1}}}"#
            )
        );
        let entered = Entered { is_recoverable: false, recovered: None, ..entered };
        assert_eq!(
            subscribe_push("news", &entered, Some(&data)),
            r#"{"push":{"channel":"news","subscribe":{"data":{}}}}"#
        );
        assert_eq!(refresh_push(Some(9)), r#"{"push":{"refresh":{"expires":true,"ttl":9}}}"#);
        assert_eq!(refresh_push(None), r#"{"push":{"refresh":{}}}"#);
        assert_eq!(message_push(b"[1,\n2]"), r#"{"push":{"message":{"data":[1,2]}}}"#);
        assert_eq!(
            error(3, &Error::TOO_MANY_REQUESTS),
            r#"{"id":3,"error":{"code":111,"message":"too many requests","temporary":true}}"#
        );
        assert_eq!(reply(4, "publish", "{}"), r#"{"id":4,"publish":{}}"#);
    }
}
