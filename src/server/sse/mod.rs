//! `GET /sse`: channels as Server-Sent Events. A request is refused before its stream begins, or not at
//! all.

mod judge;

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use futures_util::future::join_all;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue,
};
use hyper::{Method, Request, Response};
use judge::{Judged, judge};

use super::cors::Source;
use super::respond::{Body, Fault};
use super::upgrade::Upgrade;
use crate::shard::Shard;
use crate::stream::Stream;

/// Answers a request, unless it becomes a stream: that is left in `upgrade`, with its answer's head,
/// and this never resolves.
pub(super) async fn answer<B>(
    shard: &Rc<Shard>,
    request: &Request<B>,
    upgrade: &RefCell<Option<Upgrade>>,
) -> Response<Body> {
    let source = Source::of(request.headers(), &shard.hub.config.server.allowed_origins);
    let answer = match *request.method() {
        Method::GET => match open(shard, request, source).await {
            Ok(stream) => {
                upgrade.replace(Some(Upgrade::Sse(stream, head(source))));
                return pending().await;
            }
            Err(fault) => Err(fault),
        },
        Method::HEAD => judge(&shard.hub, request, source).await.map(|_| {
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

async fn open<B>(
    shard: &Rc<Shard>,
    request: &Request<B>,
    source: Source<'_>,
) -> Result<Stream, Fault> {
    let Judged { who, expires, wanted } = judge(&shard.hub, request, source).await?;
    let _hold = match &who.user {
        Some(user) => shard.hub.hold_user(user).await,
        None => None,
    };
    let seen = Instant::now();
    let followed = wanted.iter().map(|it| shard.hub.followed(&it.channel, it.from.as_ref(), seen));
    for followed in join_all(followed).await {
        followed?;
    }
    Stream::open(shard, who, expires, wanted, Some(seen)).map_err(|(channel, error)| {
        shard.hub.stats.fail_handshake("channel");
        Fault::channel(error.into(), &channel)
    })
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
