//! The HTTP API: how a backend pushes, asks and decides.
//!
//! What Centrifugo's server API also has is answered as there, so that its SDKs work: a command
//! that cannot be carried out is an `error` under status 200. What only fanfare has is answered
//! with true statuses. A method gives its result as JSON.

mod batch;
mod channels;
mod info;
mod publish;
mod users;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;

use super::pace::Pace;
use super::respond::{Body, Fault, result, text_of_json};
use crate::config::Namespace;
use crate::hub::Inner;
use crate::protocol::centrifuge::Error;
use crate::shard::Shard;

/// Answers `POST /api/<method>`.
pub(super) async fn answer(
    shard: &Shard,
    method: &str,
    request: Request<Incoming>,
    pace: &Pace,
) -> Result<Response<Body>, Fault> {
    authorize(&shard.hub, &request)?;
    let method = Method::named(method)?;
    if request.method() != hyper::Method::POST {
        return Err(Fault::method_not_allowed("POST"));
    }
    let body = read(request, shard.hub.config.limits.request_bytes).await?;
    pace.received();
    if method == Method::Batch {
        return batch::answer(shard, &body).await.map(text_of_json);
    }
    match call(shard, method, &body).await {
        Ok(answer) => Ok(result(&answer)),
        Err(fault) if method.is_own() => Err(fault),
        Err(fault) => Err(fault.in_band()),
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Batch,
    Broadcast,
    BroadcastAll,
    Channels,
    Disconnect,
    History,
    HistoryRemove,
    Info,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    SendToUser,
    Subscribe,
    Unsubscribe,
    User,
}

impl Method {
    const NAMED: [(&'static str, Self); 16] = [
        ("batch", Self::Batch),
        ("broadcast", Self::Broadcast),
        ("broadcast_all", Self::BroadcastAll),
        ("channels", Self::Channels),
        ("disconnect", Self::Disconnect),
        ("history", Self::History),
        ("history_remove", Self::HistoryRemove),
        ("info", Self::Info),
        ("presence", Self::Presence),
        ("presence_stats", Self::PresenceStats),
        ("publish", Self::Publish),
        ("refresh", Self::Refresh),
        ("send_to_user", Self::SendToUser),
        ("subscribe", Self::Subscribe),
        ("unsubscribe", Self::Unsubscribe),
        ("user", Self::User),
    ];

    fn named(name: &str) -> Result<Self, Fault> {
        let found = Self::NAMED.into_iter().find(|(named, _)| *named == name);
        found.map(|(_, method)| method).ok_or_else(|| {
            let names = Self::NAMED.map(|(name, _)| name).join(", ");
            Fault::not_found(format!("unknown method; use one of {names}"))
        })
    }

    fn name(self) -> &'static str {
        Self::NAMED.into_iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    /// Whether Centrifugo has no such method.
    fn is_own(self) -> bool {
        matches!(self, Self::BroadcastAll | Self::SendToUser | Self::User)
    }
}

/// Carries out one command, and counts it.
async fn call(shard: &Shard, method: Method, body: &[u8]) -> Result<String, Fault> {
    let hub = &*shard.hub;
    let result = match method {
        Method::Batch => Err(Fault::bad_request("a batch holds no batch")),
        Method::Broadcast => publish::broadcast(hub, body).await,
        Method::BroadcastAll => publish::broadcast_all(hub, body).await,
        Method::Channels => channels::channels(hub, body).await,
        Method::Disconnect => users::disconnect(hub, body).await,
        Method::History => channels::history(hub, body).await,
        Method::HistoryRemove => channels::history_remove(hub, body).await,
        Method::Info => Ok(info::info(hub)),
        Method::Presence => channels::presence(hub, body).await,
        Method::PresenceStats => channels::presence_stats(hub, body).await,
        Method::Publish => publish::publish(hub, body).await,
        Method::Refresh => users::refresh(hub, body).await,
        Method::SendToUser => publish::send_to_user(hub, body).await,
        Method::Subscribe => users::subscribe(hub, body).await,
        Method::Unsubscribe => users::unsubscribe(hub, body).await,
        Method::User => users::user(hub, body).await,
    };
    shard.stats().called(method.name(), 1, result.as_ref().err().map(Fault::code));
    result
}

fn authorize(hub: &Inner, request: &Request<Incoming>) -> Result<(), Fault> {
    let Some(key) = &hub.config.api.key else {
        return Err(Fault::not_found("the api is off; set api.key to use it"));
    };
    let given = request.headers().get("x-api-key").ok_or_else(Fault::unauthorized)?;
    if bool::from(given.as_bytes().ct_eq(key.expose())) {
        Ok(())
    } else {
        Err(Fault::unauthorized())
    }
}

async fn read(request: Request<Incoming>, max: usize) -> Result<Bytes, Fault> {
    let too_large = || Fault::too_large(format!("the request's body is over {max} bytes"));
    if request.body().size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let read = Limited::new(request.into_body(), max).collect().await;
    let body = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return too_large();
        }
        Fault::bad_request("the request's body is incomplete")
    })?;
    Ok(body.to_bytes())
}

/// Reads a command. What is no JSON object is a fault of transport, whatever the method.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    parse_text(
        simdutf8::basic::from_utf8(body)
            .map_err(|_| Fault::bad_request("bad request: send UTF-8").of_transport())?,
    )
}

/// The same of what is text already.
fn parse_text<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Fault> {
    // A derived type would also take an array of its fields.
    if !body.trim_ascii_start().starts_with('{') {
        return Err(Fault::bad_request("bad request: send a JSON object").of_transport());
    }
    serde_json::from_str(body).map_err(|error| {
        let fault = Fault::bad_request(format!("bad request: {error}"));
        if error.classify() == Category::Data { fault } else { fault.of_transport() }
    })
}

/// For a value that may be missing, but counts if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// JSON that is given as such or, as Centrifugo has it, in Base64.
fn json(plain: Option<&RawValue>, base64: Option<&str>) -> Result<Option<String>, Fault> {
    let Some(base64) = base64.filter(|base64| !base64.is_empty()) else {
        return Ok(plain.map(|plain| plain.get().to_owned()));
    };
    let decoded = BASE64_STANDARD.decode(base64).ok();
    let text = decoded.and_then(|decoded| String::from_utf8(decoded).ok());
    let json = text.filter(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    let message = "bad request: what is in Base64 must be JSON, as clients are sent JSON";
    json.map(Some).ok_or_else(|| Fault::bad_request(message))
}

/// The options of a channel that can be.
fn namespace<'h>(hub: &'h Inner, channel: &str) -> Result<&'h Namespace, Fault> {
    hub.namespace(channel).map_err(|error| Fault::channel(error, channel))
}

/// What cannot be had here.
fn not_available(message: &str) -> Fault {
    Fault::command(Error::NOT_AVAILABLE, message)
}

/// `{"connections":N}`.
fn connections(connections: usize) -> String {
    format!(r#"{{"connections":{connections}}}"#)
}

/// Bytes of one answer, about; over it error 106. Far more than a page is worth reading at once, and
/// few enough that some at a time do no harm.
const ANSWER_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_method() {
        let documentation = include_str!("../../../docs/api.md");
        for (name, _) in Method::NAMED {
            assert!(documentation.contains(&format!("\n### {name}\n")), "{name}");
            assert_eq!(Method::named(name).map(Method::name).ok(), Some(name));
        }
    }
}
