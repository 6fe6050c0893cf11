//! What an embedder and the server hold: connections, users, and the ways to reach them.

mod admission;
mod cluster;
mod idempotency;
mod info;
pub(crate) mod occupied;
pub(crate) mod order;
pub(crate) mod publish;

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore, watch};

use crate::auth::Verifier;
use crate::broker::{Broker, BrokerThread, ThreadError};
use crate::channel::Channels;
use crate::close::CloseReason;
use crate::config::{Config, ConfigError, HookCall, Namespace};
use crate::error::PublishError;
use crate::hook::{Application, Change, Courier, Hooks, HttpHooks};
use crate::hub::idempotency::Answered;
use crate::hub::publish::{Publish, Published};
use crate::inbox::ShardHandle;
use crate::message::Message;
use crate::metrics::HubStats;
use crate::presence::Crowd;
use crate::protocol::centrifuge::Error;
use crate::receipt::Receipt;
use crate::registry::Registry;
use crate::ring::{Load, Probe, Ring};
use crate::shard;
use crate::socket;
use crate::user::UserId;

/// The broadcast engine of this process: shards with their connections, and the user map.
///
/// Clones are cheap and mean the same hub. Every method but [`Hub::drain`] may be called from any
/// thread, inside or outside any runtime, and none blocks. When the last clone is dropped the shards stop and every
/// connection ends; [`Hub::drain`] first is the kind way.
///
/// # Promise
///
/// At most once, in order, to the connections that are open when a publish is admitted. A count
/// that is returned says for how many connections of this node the publish was admitted, not that
/// they received it: a peer may be dead or too slow, and is then closed. With a broker a publish
/// reaches the connections of every node, and counts as admitted once the broker has it.
///
/// ```
/// use fanfare::{Config, Hub, UserId};
///
/// let hub = Hub::start(Config::default())?;
/// assert_eq!(hub.broadcast(r#"{"type":"notification","event":"hello"}"#).wait()?, 0);
/// assert_eq!(hub.send_to_user(&UserId::from(42), "{}").wait()?, 0);
/// assert_eq!(hub.active_users(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    pub(crate) inner: Arc<Inner>,
    _shards: Arc<StopOnDrop>,
}

impl Hub {
    /// Starts the shards, each on a thread of its own, and one more for `hook.url` and for a broker,
    /// if they are set. With a broker it blocks until that is connected.
    ///
    /// # Errors
    ///
    /// The configuration breaks a bound, or the system gives no thread or reactor, or no certificates
    /// to trust for a hook, or the broker does not let this node in.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let config = config.check()?;
        let uid = uid();
        if !config.hook.is_set() {
            return Self::launch(config, uid, None);
        }
        let courier = Courier::start().map_err(StartError::Hooks)?;
        let hooks = HttpHooks::new(&config, courier.runtime().clone(), uid.clone());
        let hooks = Box::new(hooks.map_err(StartError::Hooks)?);
        let application = Application::new(hooks, &config.hook, &config.hook.calls);
        Self::launch(config, uid, Some((application, courier)))
    }

    /// Like [`Hub::start`], with hooks of the embedder's own in place of `hook.url` and what goes with
    /// it. `hook.timeout`, `hook.on_failure` and `hook.queue` count for them too.
    ///
    /// # Errors
    ///
    /// The configuration breaks a bound, or the system gives no thread or reactor.
    pub fn start_with(config: Config, hooks: impl Hooks) -> Result<Self, StartError> {
        let config = config.check()?;
        let courier = Courier::start().map_err(StartError::Hooks)?;
        let told = [HookCall::Channels, HookCall::Users];
        let application = Application::new(Box::new(hooks), &config.hook, &told);
        Self::launch(config, uid(), Some((application, courier)))
    }

    fn launch(
        config: Config,
        uid: String,
        hooks: Option<(Application, Courier)>,
    ) -> Result<Self, StartError> {
        let (application, courier) = hooks.unzip();
        let (broker, broker_thread) = BrokerThread::start(&config, &uid)?.unzip();
        let inner = Arc::new(Inner::new(config, uid, application, broker));
        let _shards = Arc::new(StopOnDrop(inner.clone()));
        if let Some(courier) = broker_thread {
            courier.serve(&inner);
        }
        if let Some(courier) = courier {
            courier.serve(&inner);
        }
        for index in 0..inner.shards.len() {
            shard::start(&inner, index)?;
        }
        Ok(Self { inner, _shards })
    }

    /// Sends a message to every connection.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was or will be delivered then, but for [`PublishError::Uncertain`].
    pub fn broadcast(&self, message: impl Into<Message>) -> Receipt<usize> {
        self.inner.broadcast(&message.into())
    }

    /// Sends a message to every connection of one user; to none, if it has none.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was or will be delivered then, but for [`PublishError::Uncertain`].
    pub fn send_to_user(&self, user: &UserId, message: impl Into<Message>) -> Receipt<usize> {
        self.inner.send_to_user(user, &message.into())
    }

    /// Publishes JSON to a channel: to those subscribed, and to its history if it has one. To the
    /// chat's channel it also reaches every chat connection.
    ///
    /// No promise is made to who subscribes later, beyond what the channel's history gives.
    ///
    /// ```
    /// use fanfare::{Config, Hub};
    ///
    /// let mut config = Config::default();
    /// config.channel.history_size = 10;
    /// let hub = Hub::start(config)?;
    /// let published = hub.publish("prices", r#"{"EURUSD":1.08}"#).wait()?;
    /// assert_eq!((published.connections, published.offset), (0, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was or will be delivered or remembered then, but for
    /// [`PublishError::Uncertain`]. The name must be one
    /// that [`Config`] allows, and the data at most its namespace's `max_bytes` of JSON.
    pub fn publish(&self, channel: &str, data: impl Into<String>) -> Receipt<Published> {
        let data = data.into();
        if serde_json::from_str::<&RawValue>(&data).is_err() {
            return Receipt::known(Err(self.inner.stats.refuse(PublishError::NotJson)));
        }
        self.inner.publish(Publish::new(channel, data))
    }

    /// Closes every connection that a user has now, after what was sent to it before; returns how many
    /// those are.
    ///
    /// # Errors
    ///
    /// [`PublishError`], as the close takes its turn among the publishes.
    pub fn disconnect_user(&self, user: &UserId, reason: CloseReason) -> Receipt<usize> {
        self.inner.disconnect_user(user, reason)
    }

    /// Users with at least one connection.
    pub fn active_users(&self) -> usize {
        self.inner.registry.active_users()
    }

    /// Open connections, all users' together.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::Relaxed)
    }

    /// Open connections of one user.
    pub fn user_connections(&self, user: &UserId) -> usize {
        self.inner.user_connections(user)
    }

    /// Closes every connection with 3001 over `drain.spread`, flushes, and resolves when all
    /// sockets are gone, or after `drain.timeout`. Publishing ends at once with `Closed`.
    ///
    /// Returns the sockets that were still open.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time enabled.
    pub async fn drain(&self) -> usize {
        let inner = &self.inner;
        let deadline = Instant::now() + inner.config.drain.timeout;
        inner.advance(Phase::Draining);
        let drained = async {
            loop {
                let none_left = inner.drained.notified();
                if inner.sockets.load(Ordering::Acquire) == 0 {
                    break;
                }
                none_left.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), drained).await;
        if let Some(application) = &inner.application {
            application.flush().await;
        }
        if let Some(broker) = &inner.broker {
            // What this process itself published has no socket that waited for it.
            let _ = tokio::time::timeout_at(deadline.into(), broker.room().empty()).await;
            broker.retire().await;
        }
        inner.sockets.load(Ordering::Acquire)
    }
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration breaks a bound.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system gave no thread or reactor for hooks, or no certificates to trust.
    #[error("cannot start hooks: {0}; for an https URL the system needs certificates to trust")]
    Hooks(#[source] io::Error),
    /// The broker does not let this node in.
    #[error("cannot start the broker: {0}")]
    Broker(#[source] io::Error),
    /// The system gave no thread or reactor for a shard.
    #[error("cannot start a shard: {0}; try fewer with server.shards")]
    Shard(#[from] io::Error),
}

/// What hub, shards and server share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) ring: Ring,
    pub(crate) registry: Registry,
    pub(crate) channels: Channels,
    pub(crate) crowd: Crowd,
    /// Who is asked and told, if anyone.
    pub(crate) application: Option<Application>,
    /// How this node meets others, if there are any.
    pub(crate) broker: Option<Broker>,
    pub(crate) shards: Box<[ShardHandle]>,
    pub(crate) stats: HubStats,
    pub(crate) connections: AtomicUsize,
    /// Those of them that have messages as they are: the chat's, and embedders'.
    pub(crate) chatting: AtomicUsize,
    /// Open sockets, those still in the handshake and those that close among them.
    pub(crate) sockets: AtomicUsize,
    pub(crate) max_sockets: usize,
    pub(crate) drained: Notify,
    pub(crate) started: Instant,
    pub(crate) verifier: Verifier,
    /// The channel that the chat is.
    pub(crate) chat: Arc<str>,
    /// Tells this run of this node apart from others.
    pub(crate) uid: String,
    /// The host's name.
    pub(crate) name: String,
    /// What was published under an idempotency key.
    pub(crate) answered: Answered,
    phase: watch::Sender<Phase>,
    probing: Semaphore,
}

/// How far a hub's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    Draining,
    Stopped,
}

impl From<ThreadError> for StartError {
    fn from(error: ThreadError) -> Self {
        Self::Broker(io::Error::other(error.to_string()))
    }
}

impl Inner {
    fn new(
        config: Config,
        uid: String,
        application: Option<Application>,
        broker: Option<Broker>,
    ) -> Self {
        let tells_users = application.as_ref().is_some_and(Application::tells_users);
        let shard = || ShardHandle::new(config.limits.inbox);
        let mut channels = Channels::new(config.limits.channels, config.limits.history_bytes);
        if let Some(broker) = &broker {
            channels = channels.following(broker.channels.clone());
        }
        Self {
            ring: Ring::new(config.limits.ring_messages, config.limits.ring_bytes),
            registry: Registry::new(config.chat.linger(tells_users)),
            channels,
            crowd: Crowd::new(&config.chat),
            application,
            broker,
            shards: std::iter::repeat_with(shard).take(config.server.shards).collect(),
            stats: HubStats::default(),
            connections: AtomicUsize::new(0),
            chatting: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            max_sockets: config.limits.connections.unwrap_or_else(socket::descriptors_to_spare),
            drained: Notify::new(),
            started: Instant::now(),
            verifier: Verifier::new(&config.auth),
            chat: config.chat.channel.as_str().into(),
            uid,
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            answered: Answered::new(config.limits.idempotency_keys),
            phase: watch::Sender::new(Phase::Open),
            probing: Semaphore::new(1),
            config,
        }
    }

    /// The options of a channel, or why there can be none of that name.
    pub(crate) fn namespace(&self, channel: &str) -> Result<&Namespace, Error> {
        let max_bytes = self.config.limits.channel_bytes;
        if !(1..=max_bytes).contains(&channel.len()) || channel.contains(char::is_control) {
            return Err(Error::BAD_REQUEST);
        }
        self.config.namespace(channel).ok_or(Error::UNKNOWN_CHANNEL)
    }

    /// Leaves word of a change for the application, if there is one.
    pub(crate) fn notice(&self, change: Change) {
        if let Some(application) = &self.application {
            application.notice(change);
        }
    }

    pub(crate) fn user_connections(&self, user: &UserId) -> usize {
        self.registry.targets(user).map_or(0, |targets| targets.as_slice().len())
    }

    /// The shards, those with the fewest sockets first.
    pub(crate) fn shards_by_load(&self) -> impl Iterator<Item = usize> + use<> {
        let load = |index: &usize| self.shards[*index].sockets.load(Ordering::Relaxed);
        let mut shards: Vec<_> = (0..self.shards.len()).collect();
        shards.sort_by_key(load);
        shards.into_iter()
    }

    /// Sends a probe through the ring and resolves once every shard's pump has seen it: true, or
    /// false after `patience`.
    pub(crate) async fn probe(&self, patience: Duration) -> bool {
        let turn = async {
            // One probe at a time: a flood of questions must not fill the ring.
            let _turn = self.probing.acquire().await;
            let reservation = self.ring.room().wait(0).await;
            let probe = Arc::new(Probe::new(self.shards.len()));
            self.ring.send(reservation, Load::Probe(probe.clone()));
            probe.complete().await;
        };
        tokio::time::timeout(patience, turn).await.is_ok()
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves once the hub drains.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            // The sender lives as long as any shard that could wait here.
            let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
        }
    }

    /// Resolves once the hub is stopped.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            let _ = phase.wait_for(|phase| *phase >= Phase::Stopped).await;
        }
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let advances = *phase < to;
            *phase = to.max(*phase);
            advances
        });
    }
}

/// A name for this run of this node.
fn uid() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[derive(Debug)]
struct StopOnDrop(Arc<Inner>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.advance(Phase::Stopped);
    }
}
