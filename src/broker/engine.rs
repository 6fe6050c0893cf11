//! What a broker must be able to do, and what becomes of it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::feed::Feed;
use super::parcel::Parcel;
use super::presence::{Client, ClientChange, Renewal, Turn, UserChange};
use super::topic::Topic;
use super::{nats, redis};
use crate::channel::history::Position;
use crate::config::{BrokerKind, Config};
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

/// How to come to a broker.
#[derive(Debug)]
pub(super) enum Connector {
    Redis(redis::Connector),
    Nats(nats::Connector),
}

/// Why a node does not come in.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) enum ConnectError {
    Redis(#[from] redis::ConnectError),
    Nats(#[from] nats::ConnectError),
}

/// What a node does at its broker, for as long as nothing fails.
#[derive(Debug)]
pub(crate) enum Session {
    Redis(Box<redis::Session>),
    Nats(Box<nats::Session>),
}

/// A session, and what it hears.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) feed: Feed,
}

/// A stream to be read.
pub(super) struct Read {
    pub(super) channel: Arc<str>,
    /// From where; from its beginning if nothing of it is known.
    pub(super) from: Option<Position>,
    /// How long the stream remembers each publication.
    pub(super) ttl: Duration,
}

/// A channel of which nothing must be forgotten while it is here.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) channel: Arc<str>,
    /// How long the stream remembers each publication.
    pub(super) ttl: Duration,
}

/// What was read of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Where it stands.
    pub(super) position: Position,
    /// What it has from the position that was asked for on, in order: with what stands there itself, if that
    /// is not forgotten yet, and perhaps not all that there is.
    pub(super) entries: VecDeque<Remembered>,
}

/// One publication of a stream.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) offset: u64,
    pub(super) body: Bytes,
    pub(super) age: Duration,
}

/// Why a session is of no more use.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// Why one command was refused, as the broker says it.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(String);

/// Either of them, for what takes several commands.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Refusal),
    Failed(Failure),
}

impl Connector {
    /// How to come to the one that is set, if one is.
    pub(super) fn new(config: &Config, uid: &str) -> Result<Option<Self>, ConnectError> {
        Ok(match config.broker.kind {
            BrokerKind::Local => None,
            BrokerKind::Redis => Some(Self::Redis(redis::Connector::new(config, uid)?)),
            BrokerKind::Nats => Some(Self::Nats(nats::Connector::new(config, uid)?)),
        })
    }

    pub(super) async fn connect(&self) -> Result<Connected, ConnectError> {
        Ok(match self {
            Self::Redis(connector) => {
                let (session, feed) = connector.connect().await?;
                Connected { session: Session::Redis(Box::new(session)), feed }
            }
            Self::Nats(connector) => {
                let (session, feed) = connector.connect().await?;
                Connected { session: Session::Nats(Box::new(session)), feed }
            }
        })
    }
}

impl Session {
    /// Publishes, all of a topic in order; says of each what became of it.
    pub(super) async fn publish(
        &self,
        parcels: &[Parcel<'_>],
    ) -> Result<Vec<Result<Position, Refusal>>, Failure> {
        match self {
            Self::Redis(session) => session.publish(parcels).await,
            Self::Nats(session) => session.publish(parcels).await,
        }
    }

    /// The topics by which this node tells itself something.
    pub(super) fn pulses(&self) -> &[Topic] {
        match self {
            Self::Redis(session) => session.pulses(),
            Self::Nats(session) => session.pulses(),
        }
    }

    /// Tells itself something, by all of them.
    pub(super) async fn pulse(&self, number: u64) -> Result<(), Failure> {
        match self {
            Self::Redis(session) => session.pulse(number).await,
            Self::Nats(session) => session.pulse(number).await,
        }
    }

    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), Failure> {
        match self {
            Self::Redis(session) => session.subscribe(topics).await,
            Self::Nats(session) => session.subscribe(topics).await,
        }
    }

    pub(super) async fn unsubscribe(&self, topics: &[Topic]) -> Result<(), Failure> {
        match self {
            Self::Redis(session) => session.unsubscribe(topics).await,
            Self::Nats(session) => session.unsubscribe(topics).await,
        }
    }

    /// Reads streams.
    pub(super) async fn read(
        &self,
        reads: impl Iterator<Item = &Read>,
    ) -> Result<Vec<Result<Stream, Refusal>>, Failure> {
        match self {
            Self::Redis(session) => session.read(reads).await,
            Self::Nats(session) => session.read(reads).await,
        }
    }

    /// Where streams stand; those positions, and who is on the channels, are kept for longer.
    pub(super) async fn positions(
        &self,
        watched: &[Watched],
    ) -> Result<Vec<Result<Position, Refusal>>, Failure> {
        match self {
            Self::Redis(session) => session.positions(watched).await,
            Self::Nats(session) => session.positions(watched).await,
        }
    }

    /// Has a channel's stream forget; its position stays.
    pub(crate) async fn clear(&self, channel: &str, topic: &Topic) -> Result<(), Fault> {
        match self {
            Self::Redis(session) => session.clear(channel, topic).await,
            Self::Nats(session) => session.clear(channel, topic).await,
        }
    }

    /// Renews a lease for so long; one that `is_held` must not have ended.
    pub(super) async fn renew(
        &self,
        lease: (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Result<Renewal, Refusal>, Failure> {
        match self {
            Self::Redis(session) => session.renew(lease, is_held, ttl).await,
            Self::Nats(session) => session.renew(lease, is_held, ttl).await,
        }
    }

    /// Has a lease end at once; what stood under it is gone already if it `is_reaped`.
    pub(super) async fn retire(&self, lease: &str, is_reaped: bool) -> Result<(), Failure> {
        match self {
            Self::Redis(session) => session.retire(lease, is_reaped).await,
            Self::Nats(session) => session.retire(lease, is_reaped).await,
        }
    }

    /// Whether it is this node that clears away what a dead one has left, whose lease lasts so long.
    pub(super) async fn claim(&self, lease: &str, ttl: Duration) -> Result<bool, Failure> {
        match self {
            Self::Redis(session) => session.claim(lease).await,
            Self::Nats(session) => session.claim(lease, ttl).await,
        }
    }

    /// Enters users.
    pub(super) async fn enter_users(
        &self,
        changes: &[UserChange],
    ) -> Result<Vec<Result<Turn, Refusal>>, Failure> {
        match self {
            Self::Redis(session) => session.enter_users(changes).await,
            Self::Nats(session) => session.enter_users(changes).await,
        }
    }

    /// Enters connections on channels, and tells the channel where its namespace has that.
    pub(super) async fn enter_clients(
        &self,
        changes: &[ClientChange],
    ) -> Result<Vec<Result<(), Refusal>>, Failure> {
        match self {
            Self::Redis(session) => session.enter_clients(changes).await,
            Self::Nats(session) => session.enter_clients(changes).await,
        }
    }

    /// What it takes for all users of a node to be gone.
    pub(super) async fn users_of(&self, lease: &str) -> Result<Vec<UserChange>, Fault> {
        match self {
            Self::Redis(session) => session.users_of(lease).await,
            Self::Nats(session) => session.users_of(lease).await,
        }
    }

    /// The connections of a node on channels.
    pub(super) async fn clients_of(
        &self,
        lease: &str,
    ) -> Result<Vec<(Client, Arc<ClientInfo>)>, Fault> {
        match self {
            Self::Redis(session) => session.clients_of(lease).await,
            Self::Nats(session) => session.clients_of(lease).await,
        }
    }

    /// Who is on a channel, but for what stands under leases that have ended.
    pub(crate) async fn present(
        &self,
        channel: &str,
        ended: &[String],
    ) -> Result<Vec<Arc<ClientInfo>>, Fault> {
        match self {
            Self::Redis(session) => session.present(channel, ended).await,
            Self::Nats(session) => session.present(channel, ended).await,
        }
    }

    /// How many connections and users are on a channel.
    pub(crate) async fn presence_counts(&self, channel: &str) -> Result<(usize, usize), Fault> {
        match self {
            Self::Redis(session) => session.presence_counts(channel).await,
            Self::Nats(session) => session.presence_counts(channel).await,
        }
    }

    /// Connections of a user, but for what stands under leases that have ended.
    pub(crate) async fn connections_of(
        &self,
        user: &UserId,
        ended: &[String],
    ) -> Result<usize, Fault> {
        match self {
            Self::Redis(session) => session.connections_of(user, ended).await,
            Self::Nats(session) => session.connections_of(user, ended).await,
        }
    }
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Refusal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that no stream had before.
pub(super) fn new_epoch() -> Arc<str> {
    // The keys of a hasher differ each time, and are no secret here; the system is asked once a thread.
    format!("{:08x}", RandomState::new().build_hasher().finish() as u32).into()
}

/// How long a stream's position is kept after its last publication or reading: longer than what is in it, so
/// that who comes back late is told that it lacks something, and not given another stream's beginning.
pub(super) fn position_ttl(ttl: Duration) -> Duration {
    POSITION_TTL.max(ttl * 2)
}

/// The least of them.
pub(super) const POSITION_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an idempotency key is remembered: as long as on one node.
pub(super) const KEY_TTL: Duration = Duration::from_secs(5 * 60);

/// How long clearing away what a dead node has left may take before another node tries.
pub(super) const CLAIM: Duration = Duration::from_secs(30);
