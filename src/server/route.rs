//! Path and method to endpoint.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode, Version};

use super::listeners::Door;
use super::pace::Pace;
use super::respond::{Body, Fault, text};
use super::upgrade::{self, Upgrade};
use super::{api, page, sse};
use crate::hub::Phase;
use crate::metrics;
use crate::shard::Shard;

/// Answers one request; one that ends HTTP on its socket also leaves what that becomes.
pub(super) async fn route(
    shard: &Rc<Shard>,
    door: Door,
    request: Request<Incoming>,
    pace: &Pace,
    upgrade: &RefCell<Option<Upgrade>>,
) -> Response<Body> {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        // RFC 9112 section 3.2.
        return Fault::bad_request("send a host header").into_response();
    }
    let path = request.uri().path();
    let answer = if let Some(fault) = wrong_door(door, path) {
        pace.received();
        Err(fault)
    } else if let Some(method) = path.strip_prefix("/api/") {
        let method = method.to_owned();
        api::answer(shard, &method, request, pace).await
    } else {
        pace.received();
        match path {
            "/ws/chat" => upgrade::chat(shard, &request).await.map(|(response, becomes)| {
                upgrade.replace(Some(becomes));
                response
            }),
            "/connection/websocket" => {
                upgrade::client(shard, &request).map(|(response, becomes)| {
                    upgrade.replace(Some(becomes));
                    response
                })
            }
            "/sse" => return sse::answer(shard, &request, upgrade).await,
            "/health" => get(&request).map(|()| plain(StatusCode::OK, "ok\n")),
            "/ready" => match get(&request) {
                Ok(()) => Ok(ready(shard, request.uri().query()).await),
                Err(fault) => Err(fault),
            },
            "/metrics" => get(&request)
                .map(|()| text(StatusCode::OK, METRICS_TYPE, metrics::exposition(&shard.hub))),
            "/" if shard.hub.config.server.dev => {
                get(&request).map(|()| page::page(&shard.hub, door))
            }
            "/api" => Err(Fault::not_found("name the method, as in POST /api/broadcast_all")),
            _ => Err(Fault::not_found(
                "nothing is here; connect to /connection/websocket, /sse or /ws/chat",
            )),
        }
    };
    answer.unwrap_or_else(Fault::into_response)
}

/// What is said at the door that a path is not behind.
fn wrong_door(door: Door, path: &str) -> Option<Fault> {
    let is_internal = path.starts_with("/api/")
        || matches!(path, "/" | "/api" | "/health" | "/metrics" | "/ready");
    match (door, is_internal) {
        (Door::Public, true) => {
            Some(Fault::not_found("this is not for the public; it is at server.internal_bind"))
        }
        (Door::Internal, false) => Some(Fault::not_found(
            "only the api, metrics and health are here; peers connect to server.bind",
        )),
        _ => None,
    }
}

/// Ready: not draining, a probe comes through the ring and every shard in time, and the broker is not in
/// doubt, or not for long yet.
async fn ready(shard: &Shard, query: Option<&str>) -> Response<Body> {
    if shard.hub.phase() != Phase::Open {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if !shard.hub.probe(PROBE_TIMEOUT).await {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "a shard does not answer within 5 s\n");
    }
    let mut parameters = query.unwrap_or_default().split('&');
    let strictly = parameters.any(|parameter| parameter == "strict" || parameter == "strict=true");
    if let Some(broker) = &shard.hub.broker
        && let Some(doubt) = broker.health.doubt(strictly)
    {
        return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{doubt}\n"));
    }
    plain(StatusCode::OK, "ready\n")
}

fn get(request: &Request<Incoming>) -> Result<(), Fault> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Fault::method_not_allowed("GET, HEAD")),
    }
}

fn plain(status: StatusCode, line: impl Into<Bytes>) -> Response<Body> {
    text(status, "text/plain; charset=utf-8", line)
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
