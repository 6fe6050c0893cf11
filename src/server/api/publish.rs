//! Publishing: to a channel, to several, to all, to a user.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{connections, json, namespace, not_available, parse, present};
use crate::hub::Inner;
use crate::hub::publish;
use crate::hub::publish::Published;
use crate::message::Message;
use crate::protocol::json::push_text;
use crate::server::respond::Fault;
use crate::user::UserId;

pub(super) async fn publish(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    Ok(answer(&hub.publish(parse::<Publish<'_>>(body)?.judge(hub)?).await?))
}

/// As many answers as channels, whatever became of the others.
pub(super) async fn broadcast(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    let mut publish: Publish<'_> = parse(body)?;
    let channels = mem::take(&mut publish.channels);
    if channels.is_empty() {
        return Err(Fault::bad_request("bad request: channels is missing or empty"));
    }
    let publish = publish.content()?;
    let mut responses = String::from(r#"{"responses":["#);
    for (i, channels) in channels.chunks(TOGETHER_MAX).enumerate() {
        let publishes = channels.iter().map(|channel| {
            namespace(hub, channel)?;
            Ok::<_, Fault>(publish::Publish { channel: channel.into(), ..publish.clone() })
        });
        let published = hub.publish_all(publishes).await.into_iter().map(|published| {
            let answered = published.map(|published| answer(&published));
            answered.map_or_else(|fault| fault.to_json(), |it| format!(r#"{{"result":{it}}}"#))
        });
        responses += if i > 0 { "," } else { "" };
        responses += &published.collect::<Vec<_>>().join(",");
    }
    responses.push_str("]}");
    Ok(responses)
}

pub(super) async fn broadcast_all(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct BroadcastAll<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let BroadcastAll { data } = parse(body)?;
    Ok(connections(hub.broadcast(&Message::text(data.get())).await?))
}

pub(super) async fn send_to_user(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct SendToUser<'a> {
        user: UserId,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let SendToUser { user, data } = parse(body)?;
    Ok(connections(hub.send_to_user(&user, &Message::text(data.get())).await?))
}

/// What `publish` and `broadcast` are told.
#[derive(Deserialize)]
pub(super) struct Publish<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    skip_history: Option<bool>,
    tags: Option<BTreeMap<String, String>>,
    idempotency_key: Option<String>,
    version: Option<u64>,
}

impl<'a> Publish<'a> {
    /// What it is to the one channel that it names.
    pub(super) fn judge(self, hub: &Inner) -> Result<publish::Publish<'a>, Fault> {
        let publish = self.content()?;
        namespace(hub, &publish.channel)?;
        Ok(publish)
    }

    /// What it is, to whichever channel.
    fn content(self) -> Result<publish::Publish<'a>, Fault> {
        let data = json(self.data, self.b64data.as_deref())?;
        let data = data.ok_or_else(|| Fault::bad_request("bad request: data is missing"))?;
        let idempotency_key = self.idempotency_key.filter(|key| !key.is_empty());
        if idempotency_key.as_ref().is_some_and(|key| key.len() > IDEMPOTENCY_KEY_MAX) {
            let message = "bad request: idempotency_key is too long; use at most 128 bytes";
            return Err(Fault::bad_request(message));
        }
        if self.version.is_some_and(|version| version > 0) {
            return Err(not_available("versions are not kept; use idempotency_key"));
        }
        Ok(publish::Publish {
            tags: self.tags.unwrap_or_default(),
            skips_history: self.skip_history.unwrap_or_default(),
            idempotency_key,
            ..publish::Publish::new(self.channel, data)
        })
    }
}

/// What is told of a publish.
pub(super) fn answer(published: &Published) -> String {
    let mut answer = String::new();
    push_answer(&mut answer, published);
    answer
}

/// Appends it: of many publishes it is told one after the other.
pub(super) fn push_answer(out: &mut String, Published { connections, offset, epoch }: &Published) {
    let mut digits = itoa::Buffer::new();
    out.push_str(r#"{"connections":"#);
    out.push_str(digits.format(*connections));
    if *offset > 0 {
        out.push_str(r#","offset":"#);
        out.push_str(digits.format(*offset));
    }
    if !epoch.is_empty() {
        out.push_str(r#","epoch":"#);
        push_text(out, epoch);
    }
    out.push('}');
}

/// Publishes that are made together: few enough to be held meanwhile, many enough to share a broker's time.
pub(super) const TOGETHER_MAX: usize = 1024;

/// Bytes of the longest idempotency key: three times a UUID, and room for a name.
const IDEMPOTENCY_KEY_MAX: usize = 128;
