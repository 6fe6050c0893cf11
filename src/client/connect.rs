//! `connect` and `refresh`: whose a connection is, and for how long.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;

use super::subscribe::position;
use super::{Call, Lack, Refusal};
use crate::auth::TokenError;
use crate::auth::grant::{ConnectionGrant, SubscriptionOptions};
use crate::close::CloseReason;
use crate::hook::Act;
use crate::protocol::centrifuge::{self, Connect, Error};
use crate::protocol::json::{self, is_zero};
use crate::subscription::Who;
use crate::user::Identity;

impl Call<'_> {
    pub(super) fn connect(&self, connect: &Connect<'_>) -> Result<String, Refusal> {
        let hub = &self.shard.hub;
        let (grant, welcome) = self.grant(connect)?;
        let ConnectionGrant { user, expires, info, subs } = grant;
        // Looked at first, as a peer that is refused must not have come in.
        let since = self.given.since.unwrap_or_else(Instant::now);
        for channel in subs.keys() {
            self.namespace(channel)?;
            let from = connect.subs.get(&**channel).and_then(position);
            if hub.must_wait_for(channel, from.as_ref(), since) {
                return Err(Lack::Channel(channel.clone(), from).into());
            }
        }
        if let Some(user) = &user
            && hub.broker.is_some()
            && !self.given.is_held
        {
            return Err(Lack::User(user.clone()).into());
        }
        let who =
            Who { client: self.client.clone(), user: user.clone(), info, ends: welcome.expires };
        let life = &self.connection.life;
        life.stale_at.set(0);
        let ends = expires.map(|expires| expires + REFRESH_GRACE);
        life.expires.set(ends.into_iter().chain(welcome.expires).min());
        self.connection.identify(user.map(Identity::new), hub.ring.position());
        self.shard.admit(self.connection);
        self.connection.introduce(who);
        let subs = self.subscribe_all(&connect.subs, subs)?;
        let has_pings = !life.has_frame_pings.get();
        Ok(json::encode(&ConnectResult {
            client: self.client,
            version: VERSION,
            lease: Lease::of(expires),
            data: welcome.data.as_deref(),
            subs,
            ping: if has_pings { hub.config.heartbeat.interval.as_secs().max(1) } else { 0 },
            pong: has_pings,
        }))
    }

    /// What its token, or the lack of one, and the application let a peer do, and what that is told.
    fn grant(&self, connect: &Connect<'_>) -> Result<(ConnectionGrant, Welcome), Refusal> {
        let hub = &self.shard.hub;
        let auth = &hub.config.auth;
        let granted = ConnectionGrant::of(&hub.verifier, auth, &connect.token);
        if let Err(error) = granted
            && !connect.token.is_empty()
        {
            return Err(self.refuse(error));
        }
        let user = granted.as_ref().ok().and_then(|grant| grant.user.clone());
        let Connect { data, name, version, .. } = connect;
        let act = Act::Connect { data: *data, name, version };
        let mut consent = self.consent(user.as_ref(), act)?.unwrap_or_default();
        let welcome = Welcome { data: consent.data.take(), expires: consent.expires };
        let grant = ConnectionGrant::agreed(granted, consent, auth);
        Ok((grant.map_err(|error| self.refuse(error))?, welcome))
    }

    /// Counts a bad token, and says what becomes of who gave it. Why it is bad only the log tells.
    fn refuse(&self, error: TokenError) -> Refusal {
        tracing::debug!(%error, "token refused");
        self.shard.hub.stats.fail_handshake(error.label());
        if error == TokenError::Expired {
            return Error::TOKEN_EXPIRED.into();
        }
        CloseReason::INVALID_TOKEN.into()
    }

    /// Subscribes to what its token names, from where it says that it was.
    fn subscribe_all(
        &self,
        were: &BTreeMap<Cow<'_, str>, centrifuge::Subscribe<'_>>,
        subs: BTreeMap<String, SubscriptionOptions>,
    ) -> Result<BTreeMap<String, Box<RawValue>>, Refusal> {
        let mut results = BTreeMap::new();
        let Some(who) = self.connection.who() else { return Ok(results) };
        // All of them are one answer, over which the next publication would make it a slow consumer.
        let mut room = self.shard.hub.config.limits.reply_bytes();
        for (name, options) in subs {
            let result = self.enter_by_server(who, &name, were.get(&*name), &options, room);
            // It has come in already, and would take an error for not having.
            let result = result.map_err(|refusal| match refusal {
                Refusal::Lacks(_) => CloseReason::INSUFFICIENT_STATE,
                _ => CloseReason::CHANNEL_LIMIT,
            })?;
            room = room.saturating_sub(result.len());
            results.insert(name, RawValue::from_string(result).map_err(|_| Error::INTERNAL)?);
        }
        Ok(results)
    }

    pub(super) fn refresh(
        &self,
        who: &Who,
        refresh: &centrifuge::Refresh<'_>,
    ) -> Result<String, Refusal> {
        let verifier = &self.shard.hub.verifier;
        let expires = match verifier.connection(&refresh.token, SystemTime::now()) {
            Ok(grant) if grant.user == who.user => grant.expires,
            Ok(_) => {
                let error = "its sub is another than the connection's";
                tracing::debug!(error, "token refused");
                return Err(CloseReason::INVALID_TOKEN.into());
            }
            Err(error) => {
                tracing::debug!(%error, "token refused");
                let is_expired = error == TokenError::Expired;
                let reason =
                    if is_expired { CloseReason::EXPIRED } else { CloseReason::INVALID_TOKEN };
                return Err(reason.into());
            }
        };
        let ends = expires.map(|expires| expires + REFRESH_GRACE);
        self.connection.life.expires.set(ends.into_iter().chain(who.ends).min());
        let (client, version, lease) = (&*who.client, VERSION, Lease::of(expires));
        Ok(json::encode(&RefreshResult { client, version, lease }))
    }
}

/// Whether a token ends, and when.
#[derive(Default, Serialize)]
pub(super) struct Lease {
    #[serde(skip_serializing_if = "is_zero")]
    expires: bool,
    #[serde(skip_serializing_if = "is_zero")]
    ttl: u64,
}

impl Lease {
    pub(super) fn of(expires: Option<SystemTime>) -> Self {
        expires.map(|at| Self { expires: true, ttl: seconds_to(at) }).unwrap_or_default()
    }
}

/// Whole seconds until a token ends, at least 1.
pub(crate) fn seconds_to(expires: SystemTime) -> u64 {
    expires.duration_since(SystemTime::now()).unwrap_or_default().as_secs().max(1)
}

/// What an application has to say to who connects.
#[derive(Debug, Default)]
struct Welcome {
    data: Option<Box<RawValue>>,
    /// When the connection must close.
    expires: Option<SystemTime>,
}

#[derive(Serialize)]
struct ConnectResult<'a> {
    client: &'a str,
    version: &'static str,
    #[serde(flatten)]
    lease: Lease,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subs: BTreeMap<String, Box<RawValue>>,
    #[serde(skip_serializing_if = "is_zero")]
    ping: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pong: bool,
}

#[derive(Serialize)]
struct RefreshResult<'a> {
    client: &'a str,
    version: &'static str,
    #[serde(flatten)]
    lease: Lease,
}

/// What clients are told of the server.
const VERSION: &str = concat!("fanfare ", env!("CARGO_PKG_VERSION"));

/// How long after its end a token may still be refreshed: as long as Centrifugo waits.
pub(crate) const REFRESH_GRACE: Duration = Duration::from_secs(25);
