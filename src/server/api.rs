//! The HTTP API: how a backend pushes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;

use super::pace::Pace;
use super::respond::{Body, Fault, result};
use crate::close::CloseReason;
use crate::hub::Inner;
use crate::message::Message;
use crate::metrics;
use crate::user::UserId;

/// Answers `POST /api/<method>`.
pub(super) async fn answer(
    hub: &Arc<Inner>,
    method: &str,
    request: Request<Incoming>,
    pace: &Pace,
) -> Result<Response<Body>, Fault> {
    authorize(hub, &request)?;
    let call = match method {
        "broadcast_all" => broadcast_all,
        "disconnect" => disconnect,
        "info" => info,
        "publish" => publish,
        "send_to_user" => send_to_user,
        "user" => user,
        _ => {
            return Err(Fault::not_found(
                "unknown method; use broadcast_all, send_to_user, disconnect, user or info",
            ));
        }
    };
    if request.method() != Method::POST {
        return Err(Fault::method_not_allowed("POST"));
    }
    let body = read(request, hub.config.limits.request_bytes).await?;
    pace.received();
    call(hub, &body)
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

fn broadcast_all(hub: &Inner, body: &[u8]) -> Result<Response<Body>, Fault> {
    #[derive(Deserialize)]
    struct BroadcastAll<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let BroadcastAll { data } = parse(body)?;
    connections(hub.broadcast(&Message::text(data.get()))?)
}

/// Centrifugo's `publish`; what it answers for a channel with history is the publication's place.
fn publish(hub: &Inner, body: &[u8]) -> Result<Response<Body>, Fault> {
    #[derive(Deserialize)]
    struct Publish<'a> {
        channel: String,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let Publish { channel, data } = parse(body)?;
    let published =
        hub.publish(crate::publish::Publish::new(&channel, data.get().to_owned()), None)?;
    connections(published.connections)
}

fn send_to_user(hub: &Inner, body: &[u8]) -> Result<Response<Body>, Fault> {
    #[derive(Deserialize)]
    struct SendToUser<'a> {
        user: UserId,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let SendToUser { user, data } = parse(body)?;
    connections(hub.send_to_user(&user, &Message::text(data.get()))?)
}

fn disconnect(hub: &Inner, body: &[u8]) -> Result<Response<Body>, Fault> {
    #[derive(Deserialize)]
    struct Disconnect {
        user: UserId,
        code: Option<u16>,
        reason: Option<String>,
    }
    let Disconnect { user, code, reason } = parse(body)?;
    let default = CloseReason::FORCE_DISCONNECT;
    let code = code.unwrap_or(default.code());
    let reason = match reason {
        None if code == default.code() => default,
        reason => CloseReason::new(code, reason.unwrap_or_default())
            .map_err(|error| Fault::bad_request(error.to_string()))?,
    };
    connections(hub.disconnect_user(&user, reason)?)
}

fn user(hub: &Inner, body: &[u8]) -> Result<Response<Body>, Fault> {
    #[derive(Deserialize)]
    struct User {
        user: UserId,
    }
    let User { user } = parse(body)?;
    connections(hub.user_connections(&user))
}

/// The body may be empty: nothing is asked but the method.
fn info(hub: &Inner, _: &[u8]) -> Result<Response<Body>, Fault> {
    #[derive(Serialize)]
    struct Info<'a> {
        nodes: [Node<'a>; 1],
    }
    #[derive(Serialize)]
    struct Node<'a> {
        uid: &'a str,
        name: &'a str,
        version: &'a str,
        num_clients: usize,
        num_users: usize,
        num_subs: usize,
        num_channels: usize,
        uptime: u64,
        metrics: Metrics,
        shards: usize,
        users_present: usize,
    }
    #[derive(Serialize)]
    struct Metrics {
        /// Seconds that the items cover; 0, as these are totals since the start.
        interval: f64,
        items: BTreeMap<&'static str, f64>,
    }
    let node = Node {
        uid: &hub.uid,
        name: &hub.name,
        version: env!("CARGO_PKG_VERSION"),
        num_clients: hub.connections.load(Ordering::Relaxed),
        num_users: hub.registry.active_users(),
        num_subs: 0,
        num_channels: 0,
        uptime: hub.started.elapsed().as_secs(),
        metrics: Metrics { interval: 0.0, items: metrics::totals(hub) },
        shards: hub.shards.len(),
        users_present: hub.registry.present_users(),
    };
    Ok(result(Info { nodes: [node] }))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    // A derived type would also take an array of its fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Fault::bad_request("bad request: send a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Fault::bad_request(format!("bad request: {error}")))
}

fn connections(connections: usize) -> Result<Response<Body>, Fault> {
    #[derive(Serialize)]
    struct Connections {
        connections: usize,
    }
    Ok(result(Connections { connections }))
}
