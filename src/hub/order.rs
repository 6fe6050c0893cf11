//! What a backend has the connections of a user do. An order rides the ring, so that it takes its
//! turn among the publishes, and is answered once every shard has carried it out.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::auth::grant::SubscriptionOptions;
use crate::client::{REFRESH_GRACE, seconds_to};
use crate::close::{CloseReason, UnsubscribeReason};
use crate::connection::Connection;
use crate::error::PublishError;
use crate::hub::Inner;
use crate::lock::lock;
use crate::message::{Encoding, Message};
use crate::protocol::centrifuge;
use crate::registry::Targets;
use crate::ring::{Load, Probe, Reservation};
use crate::shard::Shard;
use crate::subscription::{Recover, SubscribeError, Terms};
use crate::user::UserId;

/// An order on its way, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Order {
    whom: Whom,
    act: Act,
    shards: Probe,
    obeyed: AtomicUsize,
    refused: Mutex<Option<SubscribeError>>,
}

/// Which of a user's connections are meant: all, unless more is said.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Whom {
    /// The one of that name alone.
    pub(crate) client: Option<String>,
    /// Not those of these names.
    pub(crate) except: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Act {
    #[serde(with = "close_reason")]
    Close(CloseReason),
    /// Those who chat are sent a message, by this node alone.
    #[serde(skip)]
    Greet(Message),
    /// They expire at another time, or never.
    Refresh(Option<SystemTime>),
    Subscribe(Box<Subscribe>),
    /// From the channel of that name.
    Unsubscribe(String),
}

/// A subscription to be made.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Subscribe {
    /// A channel whose namespace is known.
    pub(crate) channel: String,
    pub(crate) options: SubscriptionOptions,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) recover: Recover,
}

/// Why an order was not carried out, or not by all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error(transparent)]
    NotAdmitted(#[from] PublishError),
    #[error("{obeyed} connections are subscribed; for others {}", .reason.advice())]
    Refused { obeyed: usize, reason: SubscribeError },
    #[error("a shard does not answer within 5 s; whether all was done is not known")]
    Unanswered,
}

impl Inner {
    /// Has connections of a user do something; says how many did.
    pub(crate) async fn order(
        &self,
        user: &UserId,
        whom: Whom,
        act: Act,
    ) -> Result<usize, OrderError> {
        let (size, max) = (act.size(), self.config.limits.message_bytes);
        if size > max {
            return Err(self.stats.refuse(PublishError::TooLarge { size, max }).into());
        }
        if let Some(broker) = &self.broker {
            return broker.order(self, user, whom, act).await;
        }
        let reservation = self.reserve(size, None).map_err(|error| self.stats.refuse(error))?;
        self.order_here(reservation, user, whom, act).await
    }

    /// The same for connections of this node; the order has its turn when this is called.
    pub(crate) fn order_here(
        &self,
        reservation: Reservation,
        user: &UserId,
        whom: Whom,
        act: Act,
    ) -> impl Future<Output = Result<usize, OrderError>> + use<> {
        let order = Arc::new(Order {
            whom,
            act,
            shards: Probe::new(self.shards.len()),
            obeyed: AtomicUsize::new(0),
            refused: Mutex::default(),
        });
        let targets = self.registry.targets(user);
        let is_given = targets.is_some();
        if let Some(targets) = targets {
            self.send(reservation, Load::Order(targets, order.clone()));
        }
        async move { if is_given { order.outcome().await } else { Ok(0) } }
    }
}

impl Order {
    /// What came of it, once every shard has carried it out.
    async fn outcome(&self) -> Result<usize, OrderError> {
        let complete = tokio::time::timeout(PATIENCE, self.shards.complete()).await;
        complete.map_err(|_| OrderError::Unanswered)?;
        let obeyed = self.obeyed.load(Ordering::Relaxed);
        match *lock(&self.refused) {
            Some(reason) => Err(OrderError::Refused { obeyed, reason }),
            None => Ok(obeyed),
        }
    }
}

impl Shard {
    /// Carries out an order on those of its targets that are here and still open.
    pub(crate) fn carry_out(&self, order: &Order, targets: &Targets) {
        let here = targets.as_slice().iter().filter(|id| id.shard == self.index);
        for connection in here.filter_map(|id| self.connections.get(*id)) {
            if !order.whom.includes(&connection) {
                continue;
            }
            match self.act(&connection, &order.act) {
                Ok(has_obeyed) => {
                    order.obeyed.fetch_add(usize::from(has_obeyed), Ordering::Relaxed);
                }
                Err(reason) => {
                    let mut refused = lock(&order.refused);
                    refused.get_or_insert(reason);
                }
            }
        }
        order.shards.arrive();
    }

    fn act(&self, connection: &Rc<Connection>, act: &Act) -> Result<bool, SubscribeError> {
        match act {
            Act::Close(reason) => self.close(connection, reason),
            Act::Greet(message) if connection.encoding == Encoding::Raw => {
                self.reply(connection, message);
            }
            Act::Greet(_) => return Ok(false),
            Act::Refresh(expires) => self.refresh(connection, *expires),
            Act::Subscribe(subscribe) => return self.subscribe_by_order(connection, subscribe),
            Act::Unsubscribe(channel) => {
                let is_subscribed = connection.subscriptions.borrow().contains_key(&**channel);
                self.end_subscription(connection, channel, &UnsubscribeReason::SERVER);
                return Ok(is_subscribed);
            }
        }
        Ok(true)
    }

    fn refresh(&self, connection: &Rc<Connection>, expires: Option<SystemTime>) {
        if connection.encoding != Encoding::Centrifuge {
            return connection.life.expires.set(expires);
        }
        connection.life.expires.set(expires.map(|expires| expires + REFRESH_GRACE));
        let push = centrifuge::refresh_push(expires.map(seconds_to));
        self.reply(connection, &Message::text(push));
    }

    /// Subscribes a peer that can be told, unless it is subscribed already.
    fn subscribe_by_order(
        &self,
        connection: &Rc<Connection>,
        subscribe: &Subscribe,
    ) -> Result<bool, SubscribeError> {
        let Subscribe { channel, options, expires, recover } = subscribe;
        let namespace = self.hub.config.namespace(channel);
        let Some((who, namespace)) = connection.who().zip(namespace) else { return Ok(false) };
        if connection.encoding != Encoding::Centrifuge {
            return Ok(false);
        }
        if connection.subscriptions.borrow().contains_key(&**channel) {
            return Ok(true);
        }
        let terms = Terms { expires: *expires, ..Terms::of_server(who, namespace, options) };
        let entered = self.subscribe(connection, channel, namespace, terms, recover)?;
        let push = centrifuge::subscribe_push(channel, &entered, options.data.as_deref());
        self.reply(connection, &Message::text(push));
        Ok(true)
    }
}

impl Whom {
    /// Whether all connections of the user are meant.
    pub(crate) fn is_everyone(&self) -> bool {
        self.client.is_none() && self.except.is_empty()
    }

    /// Whether a connection of the user is meant. One of the chat has no name.
    fn includes(&self, connection: &Connection) -> bool {
        let name = connection.who().map(|who| &*who.client);
        let is_the_one = self.client.as_deref().is_none_or(|client| name == Some(client));
        is_the_one && !self.except.iter().any(|except| name == Some(except))
    }
}

impl Act {
    /// Bytes that it brings.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Close(_) | Self::Refresh(_) => 0,
            Self::Greet(message) => message.len(),
            Self::Unsubscribe(channel) => channel.len(),
            Self::Subscribe(subscribe) => {
                let Subscribe { channel, options, .. } = &**subscribe;
                let values = [&options.info, &options.data].into_iter().flatten();
                channel.len() + values.map(|value| value.get().len()).sum::<usize>()
            }
        }
    }
}

/// A close reason on its way to other nodes.
mod close_reason {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::close::CloseReason;

    pub(super) fn serialize<S: Serializer>(it: &CloseReason, to: S) -> Result<S::Ok, S::Error> {
        (it.code(), it.reason()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(it: D) -> Result<CloseReason, D::Error> {
        let (code, reason) = <(u16, String)>::deserialize(it)?;
        CloseReason::new(code, reason).map_err(D::Error::custom)
    }
}

/// How long a shard may take; one that takes longer is not ready either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
