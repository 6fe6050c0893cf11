//! Whose a request for a stream is, and whether all that it names may be brought to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::Request;
use hyper::header::{COOKIE, HeaderMap};

use crate::auth::TokenError;
use crate::auth::grant::{ConnectionGrant, SubscriptionOptions};
use crate::channel::history::Position;
use crate::hook::{Act, Consent, Question};
use crate::hub::Inner;
use crate::protocol::centrifuge::Error;
use crate::protocol::sse::{OWN_EVENTS, positions};
use crate::server::cors::Source;
use crate::server::respond::Fault;
use crate::server::upgrade::{bearer, parameter};
use crate::stream::Wanted;
use crate::subscription::{Terms, Who};
use crate::user::UserId;

/// A request that may become a stream.
pub(super) struct Judged {
    pub(super) who: Who,
    /// When the stream must end.
    pub(super) expires: Option<SystemTime>,
    pub(super) wanted: Vec<Wanted>,
}

/// Says yes to a request, or why not; the application has its say too.
pub(super) async fn judge<B>(
    hub: &Inner,
    request: &Request<B>,
    source: Source<'_>,
) -> Result<Judged, Fault> {
    let channels = channels(request);
    let max = hub.config.limits.subscriptions;
    if channels.len() > max {
        let message = format!("name at most {max} channels (limits.subscriptions)");
        return Err(Fault::bad_request(message));
    }
    let token = token(request, source).unwrap_or_default();
    let client = Arc::from(uuid::Uuid::new_v4().to_string());
    let (grant, expires) = grant(hub, &client, &token).await?;
    let ConnectionGrant { user, info, subs, .. } = grant;
    let who = Who { client, user, info, ends: None };
    let from = positions(&last_event_id(request).unwrap_or_default(), channels.len());
    let mut wanted: Vec<Wanted> = Vec::with_capacity(channels.len());
    for (channel, from) in channels.into_iter().zip(from) {
        let is_named_twice = wanted.iter().any(|wanted| wanted.channel == channel);
        if is_named_twice || OWN_EVENTS.contains(&&*channel) {
            hub.stats.fail_handshake("channel");
            let why = "it is named twice, or is what a stream calls an event of its own";
            return Err(Fault::bad_request(format!("channel {channel}: bad request; {why}")));
        }
        wanted.push(want(hub, &who, &subs, channel, from).await?);
    }
    Ok(Judged { who, expires, wanted })
}

/// What its token, or the lack of one, and the application let a peer do, and until when.
async fn grant(
    hub: &Inner,
    client: &str,
    token: &str,
) -> Result<(ConnectionGrant, Option<SystemTime>), Fault> {
    let auth = &hub.config.auth;
    let bad_token = |error: TokenError| {
        hub.stats.fail_handshake(error.label());
        tracing::debug!(%error, "token refused");
        Fault::token(error)
    };
    let granted = ConnectionGrant::of(&hub.verifier, auth, token);
    if let Err(error) = granted
        && !token.is_empty()
    {
        return Err(bad_token(error));
    }
    let user = granted.as_ref().ok().and_then(|grant| grant.user.as_ref());
    let act = Act::Connect { data: None, name: "sse", version: "" };
    let consent = consent(hub, client, user, act).await?;
    let ends = consent.expires;
    let grant = ConnectionGrant::agreed(granted, consent, auth).map_err(bad_token)?;
    let expires = grant.expires.into_iter().chain(ends).min();
    Ok((grant, expires))
}

/// A channel that may be brought: its token names it, or namespace and application let it in.
async fn want(
    hub: &Inner,
    who: &Who,
    subs: &BTreeMap<String, SubscriptionOptions>,
    channel: String,
    from: Option<Position>,
) -> Result<Wanted, Fault> {
    let namespace = hub.namespace(&channel).map_err(|error| refuse(hub, error, &channel))?;
    let mut expires = None;
    let options = match subs.get(&channel) {
        Some(options) => options.clone(),
        None if !who.may_subscribe(&channel, namespace) => {
            return Err(refuse(hub, Error::PERMISSION_DENIED, &channel));
        }
        None => {
            let act = Act::Subscribe { channel: &channel, data: None };
            let consent = consent(hub, &who.client, who.user.as_ref(), act).await?;
            expires = consent.expires;
            let mut options = SubscriptionOptions::default();
            options.extend(consent);
            options
        }
    };
    let terms = Terms { expires, ..Terms::of_server(who, namespace, &options) };
    Ok(Wanted { channel, terms, from })
}

/// What the application says, if it has a say.
async fn consent(
    hub: &Inner,
    client: &str,
    user: Option<&UserId>,
    act: Act<'_>,
) -> Result<Consent, Fault> {
    hub.consent(&Question { client, user, act }).await.map_err(|refusal| {
        hub.stats.fail_handshake("hook");
        Fault::hook(refusal)
    })
}

fn refuse(hub: &Inner, error: Error, channel: &str) -> Fault {
    hub.stats.fail_handshake("channel");
    Fault::channel(error, channel)
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

/// The cookie that may hold the token.
const COOKIE_NAME: &str = "fanfare_token";
