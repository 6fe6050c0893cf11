//! `subscribe`, `unsubscribe` and `sub_refresh`: who may, on what terms, and what is answered.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::RawValue;

use super::connect::{Lease, REFRESH_GRACE};
use super::{Call, Lack, Refusal};
use crate::auth::TokenError;
use crate::auth::grant::{SubscriptionGrant, SubscriptionOptions};
use crate::channel::history::Position;
use crate::config::Namespace;
use crate::hook::Act;
use crate::protocol::centrifuge::{self, Error, REJECT_UNRECOVERED};
use crate::protocol::json::{self, is_zero};
use crate::subscription::{Entered, Recover, SubscribeError, Terms, Who};

impl Call<'_> {
    pub(super) fn subscribe(
        &self,
        who: &Who,
        asked: &centrifuge::Subscribe<'_>,
    ) -> Result<String, Refusal> {
        let namespace = self.namespace(&asked.channel)?;
        if self.connection.subscriptions.borrow().contains_key(&*asked.channel) {
            return Err(Error::ALREADY_SUBSCRIBED.into());
        }
        let (mut options, expires) = self.judge(who, namespace, asked)?;
        let act = Act::Subscribe { channel: &asked.channel, data: asked.data };
        let consent = self.consent(who.user.as_ref(), act)?.unwrap_or_default();
        self.must_have_room(namespace)?;
        let ends = expires.map(|expires| expires + REFRESH_GRACE);
        let is_bound = consent.expires.is_some();
        let ends = ends.into_iter().chain(consent.expires).min();
        options.extend(consent);
        let terms = Terms {
            is_server_side: false,
            hears_join_leave: asked.join_leave,
            expires: ends,
            is_bound,
            ..Terms::of_server(who, namespace, &options)
        };
        let recover = Recover {
            from: position(asked),
            or_refuse: asked.flag & REJECT_UNRECOVERED != 0,
            seen: self.given.since,
            max_bytes: self.shard.hub.config.limits.reply_bytes(),
        };
        self.enter(&asked.channel, namespace, &recover, terms, options.data.as_deref(), expires)
    }

    /// Subscribes a peer to what its connection token names; what it is brought has at most so many
    /// bytes.
    pub(super) fn enter_by_server(
        &self,
        who: &Who,
        name: &str,
        asked: Option<&centrifuge::Subscribe<'_>>,
        options: &SubscriptionOptions,
        max_bytes: usize,
    ) -> Result<String, Refusal> {
        let namespace = self.namespace(name)?;
        let terms = Terms::of_server(who, namespace, options);
        let from = asked.and_then(position);
        let recover = Recover { from, or_refuse: false, seen: self.given.since, max_bytes };
        self.enter(name, namespace, &recover, terms, options.data.as_deref(), None)
    }

    pub(super) fn unsubscribe(&self, channel: &str) -> Result<String, Refusal> {
        let is_subscribed = self.connection.subscriptions.borrow().contains_key(channel);
        if is_subscribed {
            self.must_have_room(self.namespace(channel)?)?;
            self.shard.unsubscribe(self.connection, channel);
        }
        Ok("{}".to_owned())
    }

    /// Whoever comes and goes again and again waits for the ring as who publishes does.
    fn must_have_room(&self, namespace: &Namespace) -> Result<(), Error> {
        if self.shard.can_announce(self.connection, namespace) {
            return Ok(());
        }
        Err(Error::TOO_MANY_REQUESTS)
    }

    pub(super) fn sub_refresh(
        &self,
        who: &Who,
        refresh: &centrifuge::SubRefresh<'_>,
    ) -> Result<String, Refusal> {
        self.namespace(&refresh.channel)?;
        let SubscriptionGrant { expires, .. } =
            self.granted(who, &refresh.channel, &refresh.token)?;
        let mut subscriptions = self.connection.subscriptions.borrow_mut();
        let subscription =
            subscriptions.get_mut(&*refresh.channel).ok_or(Error::PERMISSION_DENIED)?;
        let bound = subscription.terms.expires.filter(|_| subscription.terms.is_bound);
        let ends = expires.map(|expires| expires + REFRESH_GRACE);
        subscription.terms.expires = ends.into_iter().chain(bound).min();
        self.connection.life.expire_subscription(subscription.terms.expires);
        Ok(json::encode(&Lease::of(expires)))
    }

    /// What its token, or the namespace, lets it do, and until when.
    fn judge(
        &self,
        who: &Who,
        namespace: &Namespace,
        asked: &centrifuge::Subscribe<'_>,
    ) -> Result<(SubscriptionOptions, Option<SystemTime>), Refusal> {
        if !asked.token.is_empty() {
            let grant = self.granted(who, &asked.channel, &asked.token)?;
            return Ok((grant.options, grant.expires));
        }
        if who.may_subscribe(&asked.channel, namespace) {
            Ok(Default::default())
        } else {
            Err(Error::PERMISSION_DENIED.into())
        }
    }

    /// What a subscription token of this user and for this channel grants. Why it grants nothing
    /// only the log tells.
    fn granted(&self, who: &Who, channel: &str, token: &str) -> Result<SubscriptionGrant, Refusal> {
        match self.shard.hub.verifier.subscription(token, SystemTime::now()) {
            Ok(grant) if grant.channel == channel && grant.user == who.user => Ok(grant),
            Ok(_) => {
                let error = "its sub or its channel is another than the one that subscribes";
                tracing::debug!(channel, error, "subscription token refused");
                Err(Error::PERMISSION_DENIED.into())
            }
            Err(error) => {
                tracing::debug!(channel, %error, "subscription token refused");
                let is_expired = error == TokenError::Expired;
                Err(if is_expired { Error::TOKEN_EXPIRED } else { Error::PERMISSION_DENIED }.into())
            }
        }
    }

    /// Subscribes, and says so.
    fn enter(
        &self,
        name: &str,
        namespace: &Namespace,
        recover: &Recover,
        terms: Terms,
        data: Option<&RawValue>,
        expires: Option<SystemTime>,
    ) -> Result<String, Refusal> {
        let entered = self.shard.subscribe(self.connection, name, namespace, terms, recover);
        let entered = entered.map_err(|error| match error {
            SubscribeError::Behind => Lack::Channel(name.to_owned(), recover.from.clone()).into(),
            error => Refusal::Error(error.into()),
        })?;
        let Entered { position, is_recoverable, recovered } = entered;
        let Position { offset, epoch } =
            if is_recoverable { position } else { Position::default() };
        let was_recovering = recovered.is_some();
        let publications = recovered.transpose();
        let recovered = was_recovering && publications.is_ok();
        let publications = publications.ok().flatten().map(|all| centrifuge::publications(&all));
        let publications = publications.map(RawValue::from_string).transpose();
        Ok(json::encode(&SubscribeResult {
            lease: Lease::of(expires),
            recoverable: is_recoverable,
            positioned: is_recoverable,
            epoch: &epoch,
            offset,
            was_recovering,
            recovered,
            publications: publications.map_err(|_| Error::INTERNAL)?,
            data,
        }))
    }
}

/// Where a peer says that it was, if it asks for what it missed.
pub(super) fn position(asked: &centrifuge::Subscribe<'_>) -> Option<Position> {
    let position = || Position { offset: asked.offset, epoch: Arc::from(&*asked.epoch) };
    asked.recover.then(position)
}

#[derive(Serialize)]
struct SubscribeResult<'a> {
    #[serde(flatten)]
    lease: Lease,
    #[serde(skip_serializing_if = "is_zero")]
    recoverable: bool,
    #[serde(skip_serializing_if = "is_zero")]
    positioned: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    epoch: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    was_recovering: bool,
    #[serde(skip_serializing_if = "is_zero")]
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    publications: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}
