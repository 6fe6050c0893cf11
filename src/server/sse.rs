//! `GET /sse`: channels as Server-Sent Events. Who may, from where, and what the socket becomes; a
//! request is refused before its stream begins, or not at all.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::SystemTime;

use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, DATE, HeaderMap, HeaderName, HeaderValue,
};
use hyper::{Method, Request, Response};

use super::cors::Source;
use super::respond::{Body, Fault};
use super::upgrade::{Upgrade, bearer, parameter};
use crate::auth::grant::ConnectionGrant;
use crate::protocol::centrifuge::Error;
use crate::protocol::sse::{OWN_EVENTS, positions};
use crate::shard::Shard;
use crate::stream::{Stream, Wanted};
use crate::subscription::{SubscribeError, Terms, Who};

/// Answers a request, unless it becomes a stream: that is left in `upgrade`, with its answer's head,
/// and this never resolves.
pub(super) async fn answer<B>(
    shard: &Rc<Shard>,
    request: &Request<B>,
    upgrade: &RefCell<Option<Upgrade>>,
) -> Response<Body> {
    let source = Source::of(request.headers(), &shard.hub.config.server.allowed_origins);
    let answer = match *request.method() {
        Method::GET => match open(shard, request, source) {
            Ok(stream) => {
                upgrade.replace(Some(Upgrade::Sse(stream, head(source))));
                return pending().await;
            }
            Err(fault) => Err(fault),
        },
        Method::HEAD => judge(shard, request, source).map(|_| {
            let mut response = Response::new(Body::default());
            *response.headers_mut() = fields();
            response
        }),
        Method::OPTIONS => Ok(source.preflight()),
        _ => Err(Fault::method_not_allowed("GET, HEAD, OPTIONS")),
    };
    let mut response = answer.unwrap_or_else(Fault::into_response);
    source.expose(response.headers_mut());
    response
}

fn open<B>(shard: &Rc<Shard>, request: &Request<B>, source: Source<'_>) -> Result<Stream, Fault> {
    let Judged { who, expires, wanted } = judge(shard, request, source)?;
    Stream::open(shard, who, expires, wanted).map_err(
        |(channel, SubscribeError::LimitExceeded | SubscribeError::Unrecoverable)| {
            shard.hub.stats.fail_handshake("channel");
            Fault::channel(Error::LIMIT_EXCEEDED, &channel)
        },
    )
}

/// A request that may become a stream.
struct Judged {
    who: Who,
    expires: Option<SystemTime>,
    wanted: Vec<Wanted>,
}

fn judge<B>(shard: &Shard, request: &Request<B>, source: Source<'_>) -> Result<Judged, Fault> {
    let hub = &shard.hub;
    let token = token(request, source).unwrap_or_default();
    let grant = ConnectionGrant::of(&hub.verifier, &hub.config.auth, &token);
    let ConnectionGrant { user, expires, info, subs } = grant.map_err(|error| {
        hub.stats.fail_handshake(error.label());
        tracing::debug!(%error, "token refused");
        Fault::token(error)
    })?;
    let who = Who { client: uuid::Uuid::new_v4().to_string().into(), user, info };
    let channels = channels(request);
    if channels.len() > hub.config.limits.subscriptions {
        let max = hub.config.limits.subscriptions;
        return Err(Fault::bad_request(format!(
            "name at most {max} channels (limits.subscriptions)"
        )));
    }
    let from = positions(&last_event_id(request).unwrap_or_default(), channels.len());
    let mut wanted: Vec<Wanted> = Vec::with_capacity(channels.len());
    for (channel, from) in channels.into_iter().zip(from) {
        let refuse = |error| {
            hub.stats.fail_handshake("channel");
            Fault::channel(error, &channel)
        };
        let is_named_twice = wanted.iter().any(|wanted| wanted.channel == channel);
        if is_named_twice || OWN_EVENTS.contains(&&*channel) {
            return Err(refuse(Error::BAD_REQUEST));
        }
        let namespace = hub.namespace(&channel).map_err(refuse)?;
        let options = subs.get(&channel);
        if options.is_none() && !who.may_subscribe(&channel, namespace) {
            return Err(refuse(Error::PERMISSION_DENIED));
        }
        let terms = Terms::of_server(&who, namespace, &options.cloned().unwrap_or_default());
        wanted.push(Wanted { channel, terms, from });
    }
    Ok(Judged { who, expires, wanted })
}

/// The channels that a query names, in its order: `channels=a,b`, and `channel=c` for a name that
/// holds a comma.
fn channels<B>(request: &Request<B>) -> Vec<String> {
    let query = request.uri().query().unwrap_or_default();
    let mut channels = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "channel" => channels.push(value.into_owned()),
            "channels" if value.is_empty() => {}
            "channels" => channels.extend(value.split(',').map(str::to_owned)),
            _ => {}
        }
    }
    channels
}

/// What the peer saw last: the header by which an `EventSource` comes back, or else the query.
fn last_event_id<B>(request: &Request<B>) -> Option<String> {
    let header = request.headers().get("last-event-id");
    let header = header.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    header.or_else(|| parameter(request, "last_event_id"))
}

/// The token from wherever it may be.
fn token<B>(request: &Request<B>, source: Source<'_>) -> Option<String> {
    let bearer = bearer(request.headers()).map(str::to_owned);
    let cookie = || source.may_use_cookies().then(|| cookie(request.headers())).flatten();
    bearer.or_else(|| parameter(request, "token")).or_else(cookie)
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|it| it.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE_NAME).map(|(_, token)| token.trim().to_owned())
}

/// A stream's status line and header, as it is ours to write once HTTP has let go of the socket. No
/// length and no chunks: it ends with the connection, which HTTP/1.0 understands too.
fn head(source: Source<'_>) -> Vec<u8> {
    let mut fields = fields();
    source.expose(&mut fields);
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    let now = httpdate::fmt_http_date(SystemTime::now());
    fields.extend(HeaderValue::try_from(now).map(|now| (DATE, now)));
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &fields {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

fn fields() -> HeaderMap {
    let fields = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
        // A proxy that collected events would bring them late.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// The cookie that may hold the token.
const COOKIE_NAME: &str = "fanfare_token";
