//! What a connection is subscribed to, whatever protocol it speaks: how that begins and ends.

pub(crate) mod cursor;
pub(crate) mod subscribers;
mod terms;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

pub(crate) use terms::{Terms, Who};

use crate::channel::history::{Position, Unrecoverable};
use crate::channel::post::{Announcement, Change, Content, Post};
use crate::channel::publication::Publication;
use crate::channel::{Channel, ChannelId, State, TooManyChannels};
use crate::close::{CloseReason, UnsubscribeReason};
use crate::config::{JoinLeave, Namespace, Recovery};
use crate::connection::Connection;
use crate::frame::{self, Opcode};
use crate::hook;
use crate::message::Encoding;
use crate::outbox::Burst;
use crate::protocol::centrifuge::{self, ClientInfo};
use crate::protocol::sse;
use crate::ring::{ENTRY_BYTES, Load, Reservation, Share};
use crate::shard::Shard;
use crate::subscription::subscribers::Subscriber;

/// A connection's subscriptions, by channel.
pub(crate) type Subscriptions = HashMap<Arc<str>, Subscription>;

/// One subscription, as its connection knows it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Arc<Channel>,
    pub(crate) terms: Terms,
    /// Where its shard keeps it.
    slot: usize,
    /// Entries of the channel that the ring was given when this was last checked.
    given: Cell<u64>,
}

/// What a new subscriber is told.
#[derive(Debug)]
pub(crate) struct Entered {
    /// Where the stream stood when it began.
    pub(crate) position: Position,
    /// Whether it can come back to its position.
    pub(crate) is_recoverable: bool,
    /// What it missed, if it asked for that.
    pub(crate) recovered: Option<Result<Vec<Arc<Publication>>, Unrecoverable>>,
}

/// Why nothing was subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscribeError {
    /// The channel does not have yet what its stream has: wait for that, and try again.
    Behind,
    /// It asked for that rather than a subscription that lacks something.
    Unrecoverable,
    /// A limit of the channel, its namespace or the node.
    LimitExceeded,
}

impl SubscribeError {
    /// What it means, and what to do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Behind => "the broker does not answer; try again",
            Self::Unrecoverable => {
                "the position cannot be recovered; subscribe without recover_since"
            }
            Self::LimitExceeded => {
                "a limit is reached; see limits.subscriptions, limits.channels and max_subscribers"
            }
        }
    }
}

impl From<SubscribeError> for centrifuge::Error {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Behind => Self::INTERNAL,
            SubscribeError::LimitExceeded => Self::LIMIT_EXCEEDED,
            SubscribeError::Unrecoverable => Self::UNRECOVERABLE_POSITION,
        }
    }
}

impl From<TooManyChannels> for SubscribeError {
    fn from(_: TooManyChannels) -> Self {
        Self::LimitExceeded
    }
}

/// What a new subscriber is to be brought, and what is to be done if it cannot have that.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Recover {
    /// Where it was, if it asks for what it missed.
    pub(crate) from: Option<Position>,
    pub(crate) or_refuse: bool,
    /// When it had been there; now, if that is not said.
    #[serde(skip)]
    pub(crate) seen: Option<Instant>,
    /// Bytes of it at most, each publication counting [`ENTRY_BYTES`] more.
    pub(crate) max_bytes: usize,
}

impl Shard {
    /// Subscribes a connection. What its peer is told must reach the outbox before anything is
    /// awaited: the pump gives it all that comes after, and nothing before.
    pub(crate) fn subscribe(
        &self,
        connection: &Rc<Connection>,
        name: &str,
        namespace: &Namespace,
        terms: Terms,
        recover: &Recover,
    ) -> Result<Entered, SubscribeError> {
        let window = namespace.window();
        let room = self.room_to_announce(connection, namespace, Some(connection.share()));
        let info = connection.who().map(|who| who.info(terms.info.clone()));
        let channels = &self.hub.channels;
        let has_room =
            connection.subscriptions.borrow().len() < self.hub.config.limits.subscriptions;
        let entered = channels.subscribe_with(name, window, |channel, state| {
            let max = namespace.max_subscribers;
            if !has_room || (max > 0 && state.subscribers() >= max) {
                return Err(SubscribeError::LimitExceeded);
            }
            let seen = recover.seen.unwrap_or_else(Instant::now);
            if !self.hub.ensure_current(channel, state, recover.from.as_ref(), seen) {
                return Err(SubscribeError::Behind);
            }
            let recovered = recovered(state, namespace.recovery, recover);
            if recover.or_refuse && matches!(recovered, Some(Err(_))) {
                return Err(SubscribeError::Unrecoverable);
            }
            let (position, since) = (state.history.position(), state.sequence());
            if state.subscribers() == 0 {
                // Under the lock, so that occupied and vacated alternate.
                self.hub.notice(hook::Change::ChannelOccupied(channel.name.clone()));
            }
            if let (true, Some(info)) = (namespace.counts_presence(), info) {
                let info = Arc::new(info);
                let is_first = state.enter(info.clone());
                if let Some(broker) = &self.hub.broker {
                    broker.presence.note_client(&channel.name, &info.client.as_str().into());
                } else if namespace.join_leave == JoinLeave::Client || is_first {
                    self.announce(room, channel, state, Change::Join, info);
                }
            }
            Ok((channel.clone(), since, position, recovered))
        });
        let (channel, since, position, recovered) = entered?;
        let is_recoverable = window.is_open() && namespace.recovery != Recovery::Off;
        self.add(channel, connection, terms, since, is_recoverable);
        Ok(Entered { position, is_recoverable, recovered })
    }

    /// Notes a subscription where pump and connection look for it.
    fn add(
        &self,
        channel: Arc<Channel>,
        connection: &Rc<Connection>,
        terms: Terms,
        since: u64,
        is_positioned: bool,
    ) {
        let subscriber = Subscriber {
            connection: connection.clone(),
            since,
            hears_join_leave: terms.hears_join_leave,
            is_positioned,
        };
        let slot = self.subscribers.insert(channel.id, subscriber);
        connection.life.expire_subscription(terms.expires);
        let name = channel.name.clone();
        let subscription = Subscription { channel, terms, slot, given: Cell::new(0) };
        connection.subscriptions.borrow_mut().insert(name, subscription);
    }

    /// Ends a subscription; false if there was none.
    pub(crate) fn unsubscribe(&self, connection: &Connection, name: &str) -> bool {
        let subscription = connection.subscriptions.borrow_mut().remove(name);
        subscription.is_some_and(|subscription| {
            self.leave(connection, &subscription, Some(connection.share()));
            true
        })
    }

    /// Looks for what nothing came after that would have shown it missing: by now the pump has seen
    /// all that the ring was given when this was called last, an interval of pings ago.
    pub(crate) fn check_positions(&self, connection: &Rc<Connection>) {
        let mut lacking = Vec::new();
        for subscription in connection.subscriptions.borrow().values() {
            let Subscription { channel, slot, given, .. } = subscription;
            if self.subscribers.lacks(channel.id, *slot, given.replace(channel.sequence())) {
                lacking.push(channel.id);
            }
        }
        self.stats().gapped(lacking.len() as u64);
        for channel in lacking {
            self.interrupt(connection, channel);
        }
    }

    /// Ends a subscription that lacks something, so that its peer comes back for it.
    pub(crate) fn interrupt(&self, connection: &Rc<Connection>, channel: ChannelId) {
        let is_gapped = |subscription: &Subscription| subscription.channel.id == channel;
        let closing = &CloseReason::INSUFFICIENT_STATE;
        self.end_some(connection, is_gapped, closing, &UnsubscribeReason::INSUFFICIENT_STATE);
    }

    /// Ends a subscription, and tells its peer why.
    pub(crate) fn end_subscription(
        &self,
        connection: &Rc<Connection>,
        name: &str,
        reason: &UnsubscribeReason,
    ) {
        if self.unsubscribe(connection, name) {
            let frame = match connection.encoding {
                Encoding::Raw | Encoding::Centrifuge => {
                    let push = centrifuge::unsubscribe_push(name, reason);
                    frame::encode(Opcode::Text, push.as_bytes())
                }
                Encoding::Sse => sse::unsubscribed(name, reason).into(),
            };
            let burst = Burst::lone(frame, self.clock.now(), &self.budget);
            self.queue(connection, &burst, self.hub.config.limits.outbox_bytes);
        }
    }

    /// Ends the subscriptions whose time is over.
    pub(crate) fn expire_subscriptions(&self, connection: &Rc<Connection>, now: SystemTime) {
        let is_over = |subscription: &Subscription| {
            subscription.terms.expires.is_some_and(|expires| expires <= now)
        };
        let closing = &CloseReason::SUBSCRIPTION_EXPIRED;
        self.end_some(connection, is_over, closing, &UnsubscribeReason::EXPIRED);
        let subscriptions = connection.subscriptions.borrow();
        let first = subscriptions.values().filter_map(|it| it.terms.expires).min();
        connection.life.subscription_expires.set(first);
    }

    /// Ends subscriptions for a reason that their clients are to come back after. One that the
    /// server made comes back with the connection, so that closes.
    fn end_some(
        &self,
        connection: &Rc<Connection>,
        which: impl Fn(&Subscription) -> bool,
        closing: &CloseReason,
        unsubscribing: &UnsubscribeReason,
    ) {
        let subscriptions = connection.subscriptions.borrow();
        let ending = subscriptions.values().filter(|subscription| which(subscription));
        let ending: Vec<_> =
            ending.map(|it| (it.channel.name.clone(), it.terms.is_server_side)).collect();
        drop(subscriptions);
        if ending.iter().any(|(_, is_server_side)| *is_server_side) {
            return self.close(connection, closing);
        }
        for (name, _) in ending {
            self.end_subscription(connection, &name, unsubscribing);
        }
    }

    /// Ends every subscription of a connection that closes.
    pub(crate) fn leave_all(&self, connection: &Connection) {
        for subscription in connection.subscriptions.take().values() {
            // Its last word must not be lost for what it holds of the ring.
            self.leave(connection, subscription, None);
        }
    }

    fn leave(
        &self,
        connection: &Connection,
        subscription: &Subscription,
        share: Option<&Arc<Share>>,
    ) {
        let channel = &subscription.channel;
        self.subscribers.remove(channel.id, subscription.slot);
        let namespace = self.hub.config.namespace(&channel.name);
        let room =
            namespace.and_then(|namespace| self.room_to_announce(connection, namespace, share));
        self.hub.channels.unsubscribe_with(channel, |state| {
            if state.subscribers() == 1 {
                self.hub.notice(hook::Change::ChannelVacated(channel.name.clone()));
            }
            let Some((namespace, who)) = namespace.zip(connection.who()) else { return };
            let Some((info, is_last)) = state.leave(&who.client) else { return };
            if let Some(broker) = &self.hub.broker {
                broker.presence.note_client(&channel.name, &who.client);
            } else if namespace.join_leave == JoinLeave::Client || is_last {
                self.announce(room, channel, state, Change::Leave, info);
            }
        });
    }
}

impl Shard {
    /// Whether there is room in the ring for telling of a connection, where the namespace has that.
    pub(crate) fn can_announce(&self, connection: &Connection, namespace: &Namespace) -> bool {
        let reserve = || self.hub.ring.reserve(self.told_of(connection), Some(connection.share()));
        !self.announces(namespace) || reserve().is_some()
    }

    /// Room in the ring for telling of someone, where the namespace has that. Without room nothing
    /// is told, and that is counted.
    fn room_to_announce(
        &self,
        connection: &Connection,
        namespace: &Namespace,
        share: Option<&Arc<Share>>,
    ) -> Option<Reservation> {
        if !self.announces(namespace) {
            return None;
        }
        let reservation = self.hub.ring.reserve(self.told_of(connection), share);
        if reservation.is_none() {
            self.hub.stats.presence_dropped();
        }
        reservation
    }

    /// Whether it is this node that tells of joins and leaves; with a broker all nodes do, by that.
    fn announces(&self, namespace: &Namespace) -> bool {
        namespace.join_leave != JoinLeave::Off && self.hub.broker.is_none()
    }

    /// Bytes that telling of a connection counts in the ring.
    fn told_of(&self, connection: &Connection) -> usize {
        let info = connection.who().and_then(|who| who.info.as_ref());
        self.hub.ring_bytes(ANNOUNCEMENT_BYTES + info.map_or(0, |info| info.get().len()))
    }

    fn announce(
        &self,
        room: Option<Reservation>,
        channel: &Channel,
        state: &mut State,
        change: Change,
        info: Arc<ClientInfo>,
    ) {
        let Some(reservation) = room else { return };
        let announcement = Announcement::new(channel.name.clone(), change, info);
        let content = Content::Announcement(Arc::new(announcement));
        let post = Post { channel: channel.id, sequence: state.take_sequence(), content };
        self.hub.ring.send(reservation, Load::Post(post));
    }
}

/// What a new subscriber is given, if anything: all that it missed, if that is all there and not too
/// much; of a cache the latest publication, asked for or not.
fn recovered(
    state: &State,
    recovery: Recovery,
    recover: &Recover,
) -> Option<Result<Vec<Arc<Publication>>, Unrecoverable>> {
    let history = &state.history;
    let found = match (recovery, &recover.from) {
        (Recovery::Off, _) | (Recovery::Stream, None) => return None,
        (Recovery::Cache, None) => Ok(vec![history.latest()?.clone()]),
        (Recovery::Cache, Some(from)) => {
            history.refresh(from).map(|latest| latest.cloned().into_iter().collect())
        }
        (Recovery::Stream, Some(from)) => {
            history.recover(from, RECOVERED_MAX).map(|missed| missed.cloned().collect())
        }
    };
    let size = |publication: &Arc<Publication>| publication.size() + ENTRY_BYTES;
    let bytes: usize = found.iter().flatten().map(size).sum();
    if bytes <= recover.max_bytes {
        return Some(found);
    }
    recover.from.is_some().then_some(Err(Unrecoverable))
}

/// Publications of one recovery or page at most.
pub(crate) const RECOVERED_MAX: usize = 300;

/// What an announcement counts in the ring beside what the connection's token says of it.
const ANNOUNCEMENT_BYTES: usize = 512;
