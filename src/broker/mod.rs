//! How nodes meet: what is published on one reaches the peers of all.
//!
//! On one node there is no broker, and a publish goes straight into the ring. With one, a publish goes
//! to the broker and comes back to every node that has someone to give it to, this one included; only
//! then it takes its turn in the ring. So all nodes see one order, and a publish that is answered as
//! done is one that the broker has.
//!
//! A channel with history is a stream at the broker, which gives each publication its position. A node with
//! subscribers keeps a [mirror](crate::channel::mirror) of what the stream has: read once when its first
//! subscriber comes, then fed by what is published. Whoever subscribes or recovers is answered from that.
//! After any doubt the stream is read again from where the mirror stands: what lacks is brought in its
//! order, and only what cannot be had any more ends subscriptions, so that their peers come back for it.
//!
//! What is published and what comes go through one thread: publishes go out in the order in which they were
//! made, and what comes waits for room in the ring, for which no shard ever waits.

mod catch_up;
mod check;
mod delivery;
mod engine;
mod entered;
pub(crate) mod envelope;
mod feed;
mod follow;
mod health;
mod holds;
mod lease;
mod nats;
mod order;
mod parcel;
mod pending;
mod presence;
mod pulse;
mod queue;
mod reap;
mod redis;
mod register;
mod serve;
mod stats;
mod survey;
mod thread;
mod together;
mod topic;
mod user_record;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use engine::{Fault, Session};
pub(crate) use health::Health;
use holds::Holds;
pub(crate) use holds::UserHold;
use order::Orders;
use presence::Presence;
pub(crate) use presence::UserChange;
pub(crate) use queue::Outgoing;
use queue::{Answer, Queue, Remember, Requests};
pub(crate) use stats::BrokerStats;
use survey::Surveys;
pub(crate) use thread::{BrokerThread, ThreadError};
pub(crate) use together::Together;
use tokio::sync::Semaphore;
pub(crate) use topic::Topic;

use crate::agenda::Agenda;
use crate::channel::history::Window;
use crate::config::Config;
use crate::error::PublishError;
use crate::hub::Inner;
use crate::hub::publish::{Publish, Published};
use crate::message::Message;
use crate::protocol::centrifuge::ClientInfo;
use crate::receipt::Receipt;
use crate::ring::{Audience, Room, Share};
use crate::user::UserId;

/// The broker as a node's threads see it.
#[derive(Debug)]
pub(crate) struct Broker {
    queue: Queue,
    /// Channels that came or went, or that lack something.
    pub(crate) channels: Arc<Agenda<Arc<str>>>,
    /// Users whose first connection came, or whose last went.
    pub(crate) users: Agenda<UserId>,
    holds: Holds,
    pub(crate) health: Health,
    pub(crate) presence: Presence,
    pub(crate) stats: BrokerStats,
    orders: Orders,
    surveys: Surveys,
    /// One survey is answered at a time, as each looks at every channel.
    answering: Semaphore,
    /// What is asked beside the publishes; `None` in doubt.
    session: ArcSwapOption<Session>,
    /// How long whoever needs the broker waits for it.
    pub(crate) timeout: Duration,
}

impl Broker {
    /// A broker that nobody serves yet, and what it is to be sent.
    fn new(config: &Config, uid: &str) -> (Self, Requests) {
        let (queue, requests) = Queue::new(&config.limits, config.broker.timeout);
        let broker = Self {
            queue,
            channels: Arc::default(),
            users: Agenda::default(),
            holds: Holds::default(),
            health: Health::new(config.broker.ready),
            presence: Presence::new(uid),
            stats: BrokerStats::default(),
            orders: Orders::default(),
            surveys: Surveys::default(),
            answering: Semaphore::new(1),
            session: ArcSwapOption::empty(),
            timeout: config.broker.timeout,
        };
        (broker, requests)
    }

    /// What may wait to be sent.
    pub(crate) fn room(&self) -> &Arc<Room> {
        self.queue.room()
    }

    /// Publishes to a channel.
    pub(crate) fn publish(
        &self,
        hub: &Inner,
        outgoing: Outgoing,
        share: Option<&Arc<Share>>,
    ) -> Receipt<Published> {
        receipt(self.queue.send(hub, outgoing, share), |published| published)
    }

    /// For publishes that wait for the broker together.
    pub(crate) fn together(&self) -> Together<'_> {
        Together::new(&self.queue)
    }

    /// Sends a message to all.
    pub(crate) fn tell(
        &self,
        hub: &Inner,
        message: &Message,
        audience: Audience,
        window: Window,
        share: Option<&Arc<Share>>,
    ) -> Receipt<usize> {
        let outgoing = to_all(hub, message, audience, window);
        receipt(self.queue.send(hub, outgoing, share), |published| published.connections)
    }

    /// Tells all of a user's coming or going, also while this node ends: it may be what ends it.
    pub(crate) fn announce(&self, hub: &Inner, message: &Message, window: Window) -> bool {
        let outgoing = to_all(hub, message, Audience::Chat, window);
        self.queue.send_at_any_time(hub, outgoing).is_ok()
    }

    /// Sends a message to a user's connections.
    pub(crate) fn send_to_user(
        &self,
        hub: &Inner,
        user: &UserId,
        message: &Message,
    ) -> Receipt<usize> {
        self.send_to(hub, user, envelope::unicast_body(user, message))
    }

    /// Who is on a channel, on all nodes.
    pub(crate) async fn present(
        &self,
        channel: &str,
    ) -> Result<Vec<Arc<ClientInfo>>, PublishError> {
        self.ask(async |session| session.present(channel, &self.presence.ended()).await).await
    }

    /// How many connections and users are on a channel, on all nodes.
    pub(crate) async fn presence_counts(
        &self,
        channel: &str,
    ) -> Result<(usize, usize), PublishError> {
        self.ask(async |session| session.presence_counts(channel).await).await
    }

    /// How many connections a user has, on all nodes.
    pub(crate) async fn connections_of(&self, user: &UserId) -> Result<usize, PublishError> {
        let ended = self.presence.ended();
        self.ask(async |session| session.connections_of(user, &ended).await).await
    }

    /// Has what this node entered go at once, as it ends.
    pub(crate) async fn retire(&self) {
        let lease = self.presence.retire();
        if let Some(session) = self.session.load_full() {
            // Without that it goes when the lease ends.
            let _ = tokio::time::timeout(FAREWELL, session.retire(&lease, false)).await;
        }
    }

    /// Has a channel forget its publications on all nodes; its position stays.
    pub(crate) async fn clear(&self, hub: &Inner, channel: &str) -> Result<(), PublishError> {
        let session = self.session.load_full().ok_or(PublishError::Unavailable)?;
        session.clear(channel, &topic_of(hub, channel)).await.map_err(|fault| {
            tracing::debug!(channel, %fault, "the broker refuses to forget");
            PublishError::Uncertain
        })
    }

    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Session) -> Result<T, Fault>,
    ) -> Result<T, PublishError> {
        let session = self.session.load_full().ok_or(PublishError::Unavailable)?;
        question(&session).await.map_err(|fault| {
            tracing::debug!(%fault, "the broker does not answer a question");
            PublishError::Unavailable
        })
    }

    fn send_to(&self, hub: &Inner, user: &UserId, body: Bytes) -> Receipt<usize> {
        let (topic, audience) = (Topic::User(user.clone()), Audience::Everyone);
        let outgoing = Outgoing { topic, body, remember: None, audience };
        receipt(self.queue.send(hub, outgoing, None), |published| published.connections)
    }
}

/// What becomes of what was sent.
fn receipt<T>(sent: Result<Answer, PublishError>, give: fn(Published) -> T) -> Receipt<T> {
    sent.map_or_else(|error| Receipt::known(Err(error)), |answer| Receipt::awaited(answer, give))
}

/// A publication to a channel; under an idempotency key it is published once, on whichever nodes it is tried.
pub(crate) fn to_channel(
    hub: &Inner,
    Publish { channel, data, info, tags, idempotency_key, .. }: &Publish<'_>,
    window: Window,
) -> Outgoing {
    Outgoing {
        topic: topic_of(hub, channel),
        body: envelope::publication_body(data, info.as_deref(), tags),
        remember: Remember::new(channel, window, idempotency_key.as_deref()),
        audience: Audience::Chat,
    }
}

/// A message for all, which the chat's channel remembers.
fn to_all(hub: &Inner, message: &Message, audience: Audience, window: Window) -> Outgoing {
    Outgoing {
        topic: Topic::All,
        body: envelope::message_body(message, audience),
        remember: Remember::new(&hub.chat, window, None),
        audience,
    }
}

/// By which topic a channel's publications come.
fn topic_of(hub: &Inner, channel: &str) -> Topic {
    if *channel == *hub.chat { Topic::All } else { Topic::Channel(channel.into()) }
}

/// How long an ending node waits for the broker to let go of what it entered.
const FAREWELL: Duration = Duration::from_secs(1);
