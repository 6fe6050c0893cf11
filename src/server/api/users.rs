//! What a user's connections are to do, and how many there are.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{connections, json, namespace, not_available, parse, present};
use crate::auth::grant::SubscriptionOptions;
use crate::channel::history::Position;
use crate::close::{CloseReason, InvalidCloseReason};
use crate::hub::Inner;
use crate::hub::order::{self, Act, OrderError, Whom};
use crate::protocol::centrifuge::{Error, Since};
use crate::protocol::json::one_line;
use crate::server::respond::Fault;
use crate::subscription::Recover;
use crate::user::UserId;

/// Subscribes those connections that are open now and can be told.
pub(super) async fn subscribe(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Subscribe<'a> {
        user: UserId,
        #[serde(default)]
        channel: String,
        #[serde(borrow, default, deserialize_with = "present")]
        info: Option<&'a RawValue>,
        b64info: Option<String>,
        #[serde(borrow, default, deserialize_with = "present")]
        data: Option<&'a RawValue>,
        b64data: Option<String>,
        client: Option<String>,
        session: Option<String>,
        expire_at: Option<u64>,
        #[serde(borrow)]
        recover_since: Option<Since<'a>>,
        #[serde(borrow, rename = "override")]
        overrides: Option<&'a RawValue>,
    }
    let asked: Subscribe<'_> = parse(body)?;
    namespace(hub, &asked.channel)?;
    if asked.overrides.is_some() {
        return Err(not_available("override is not known; set the options of the namespace"));
    }
    let expires = date(asked.expire_at)?;
    if expires.is_some_and(|expires| expires <= SystemTime::now()) {
        return Err(Fault::command(
            Error::EXPIRED,
            "expire_at has passed; name a time that is ahead",
        ));
    }
    let value = |plain, base64: Option<String>| {
        let text = json(plain, base64.as_deref())?;
        Ok::<_, Fault>(text.and_then(|text| RawValue::from_string(text).ok()).map(one_line))
    };
    let options = SubscriptionOptions {
        info: value(asked.info, asked.b64info)?,
        data: value(asked.data, asked.b64data)?,
        ..SubscriptionOptions::default()
    };
    let position =
        |since: Since<'_>| Position { offset: since.offset, epoch: (&*since.epoch).into() };
    let recover = Recover {
        from: asked.recover_since.map(position),
        or_refuse: true,
        seen: None,
        max_bytes: hub.config.limits.reply_bytes(),
    };
    let whom = whom(asked.client, asked.session, None)?;
    let subscribe = order::Subscribe { channel: asked.channel, options, expires, recover };
    order(hub, &asked.user, whom, Act::Subscribe(Box::new(subscribe))).await
}

pub(super) async fn unsubscribe(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Unsubscribe {
        user: UserId,
        #[serde(default)]
        channel: String,
        client: Option<String>,
        session: Option<String>,
    }
    let Unsubscribe { user, channel, client, session } = parse(body)?;
    namespace(hub, &channel)?;
    order(hub, &user, whom(client, session, None)?, Act::Unsubscribe(channel)).await
}

/// Has connections expire at another time, at once, or never.
pub(super) async fn refresh(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Refresh {
        user: UserId,
        client: Option<String>,
        session: Option<String>,
        expired: Option<bool>,
        expire_at: Option<u64>,
    }
    let Refresh { user, client, session, expired, expire_at } = parse(body)?;
    let expires = date(expire_at)?;
    let is_over = expires.is_some_and(|expires| expires <= SystemTime::now());
    let act = if is_over || expired.unwrap_or_default() {
        Act::Close(CloseReason::EXPIRED)
    } else {
        Act::Refresh(expires)
    };
    order(hub, &user, whom(client, session, None)?, act).await
}

pub(super) async fn disconnect(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Default, Deserialize)]
    struct Close {
        code: Option<u16>,
        reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct Disconnect {
        user: UserId,
        client: Option<String>,
        session: Option<String>,
        whitelist: Option<Vec<String>>,
        disconnect: Option<Close>,
        code: Option<u16>,
        reason: Option<String>,
    }
    let Disconnect { user, client, session, whitelist, disconnect, code, reason } = parse(body)?;
    let close = disconnect.unwrap_or(Close { code, reason });
    let reason = close_reason(close.code, close.reason)
        .map_err(|error| Fault::bad_request(error.to_string()))?;
    let whom = whom(client, session, whitelist)?;
    if whom.is_everyone() {
        return Ok(connections(hub.disconnect_user(&user, reason).await?));
    }
    order(hub, &user, whom, Act::Close(reason)).await
}

pub(super) async fn user(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct User {
        user: UserId,
    }
    let User { user } = parse(body)?;
    Ok(connections(hub.connections_of(&user).await?))
}

/// Gives an order, and says how many connections carried it out.
async fn order(hub: &Inner, user: &UserId, whom: Whom, act: Act) -> Result<String, Fault> {
    match hub.order(user, whom, act).await {
        Ok(obeyed) => Ok(connections(obeyed)),
        Err(OrderError::NotAdmitted(error)) => Err(error.into()),
        Err(error @ OrderError::Refused { reason, .. }) => {
            Err(Fault::command(reason.into(), error.to_string()))
        }
        Err(error @ OrderError::Unanswered) => {
            Err(Fault::command(Error::INTERNAL, error.to_string()))
        }
    }
}

fn whom(
    client: Option<String>,
    session: Option<String>,
    whitelist: Option<Vec<String>>,
) -> Result<Whom, Fault> {
    if session.is_some_and(|named| !named.is_empty()) {
        return Err(not_available("connections are named by client alone"));
    }
    let client = client.filter(|client| !client.is_empty());
    Ok(Whom { client, except: whitelist.unwrap_or_default() })
}

fn close_reason(
    code: Option<u16>,
    reason: Option<String>,
) -> Result<CloseReason, InvalidCloseReason> {
    let default = CloseReason::FORCE_DISCONNECT;
    let code = code.unwrap_or(default.code());
    match reason {
        None if code == default.code() => Ok(default),
        reason => CloseReason::new(code, reason.unwrap_or_default()),
    }
}

/// A time in seconds since 1970; 0 is none.
fn date(seconds: Option<u64>) -> Result<Option<SystemTime>, Fault> {
    let Some(seconds) = seconds.filter(|seconds| *seconds > 0) else { return Ok(None) };
    if seconds > LAST_SECOND {
        return Err(Fault::bad_request("bad request: expire_at lies after the year 9999"));
    }
    Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// The end of the year 9999: no clock goes further, and adding to it is safe.
const LAST_SECOND: u64 = 253_402_300_799;
