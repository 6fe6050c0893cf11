//! A publisher and its subscribers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::backend::Backend;
use crate::channels::Channels;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::publisher::{Encoder, Publisher, Sent};
use crate::schedule::{Rate, Schedule};
use crate::subscribers::Subscribers;
use crate::tally::Latency;
use crate::target::Target;

/// Who publishes, and bodies of how many bytes.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A chat connection, to all.
    Chat(usize),
    /// A connection that is subscribed to all channels, to each in turn.
    Client(usize, Channels),
    /// A backend with a key, to all.
    Broadcast(usize, String),
    /// A backend with a key, to the connections of one user.
    Unicast(usize, String, u32),
    /// A backend with a key, to each channel in turn.
    Publish(usize, String, Channels),
    /// The same with one call for all that is due at once.
    Batch(usize, String, Channels),
    /// A connection to the floor server; the body is all of the payload.
    Bare(usize, Reach),
}

/// Whom a floor server sends a frame to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    /// One connection, in turn.
    One,
}

impl Source {
    /// How many get a publish if so many subscribe, whoever publishes not counted.
    pub(crate) fn audience(&self, subscribers: u32) -> Result<u64, Failure> {
        match self {
            Self::Bare(_, Reach::One) => Ok(1),
            Self::Publish(_, _, channels) | Self::Batch(_, _, channels) => {
                channels.audience(subscribers)
            }
            Self::Client(_, channels) => Ok(channels.audience(subscribers)? + 1),
            Self::Chat(_) | Self::Bare(_, Reach::All) => Ok(u64::from(subscribers) + 1),
            Self::Broadcast(..) | Self::Unicast(..) => Ok(subscribers.into()),
        }
    }
}

/// Everything that takes part, each connection known to be subscribed.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) subscribers: Subscribers,
    publisher: Publisher,
    backend: Option<Backend>,
    /// How many get each publish.
    audience: u64,
    clock: Clock,
}

impl Feed {
    /// Adds a publisher; one that needs a connection of its own is `user` and subscribes as well.
    pub(crate) async fn open(
        target: &Target,
        mut subscribers: Subscribers,
        source: &Source,
        user: u32,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let audience = source.audience(subscribers.len() as u32)?;
        let backend = match source {
            Source::Chat(_) | Source::Client(..) | Source::Bare(..) => None,
            Source::Broadcast(_, key)
            | Source::Unicast(_, key, _)
            | Source::Publish(_, key, _)
            | Source::Batch(_, key, _) => Some(Backend::connect(target, key).await?),
        };
        let writer = match &backend {
            Some(backend) => backend.writer.clone(),
            None => subscribers.add(target.connect_publisher(user).await?, |_| ()),
        };
        if target.answers_pings() {
            subscribers.call_roll().await?;
        }
        let publisher = Publisher::new(writer, Encoder::new(0, source, target.address()), clock)?;
        Ok(Self { subscribers, publisher, backend, audience, clock })
    }

    /// Publishes what the schedule says.
    pub(crate) async fn publish(&mut self, schedule: Schedule) -> Result<(), Failure> {
        Ok(self.publisher.run(schedule).await?)
    }

    /// Waits for what is still under way.
    pub(crate) async fn drain(&self) -> Result<(), Failure> {
        if let Some(backend) = &self.backend {
            backend.answers.wait(self.sent().count.get()).await?;
        }
        self.subscribers.drain(self.expected()).await;
        Ok(())
    }

    /// Publishes for so long; returns the latencies once all is delivered.
    pub(crate) async fn run(&mut self, rate: f64, length: Duration) -> Result<Latency, Failure> {
        let start = self.clock.now();
        self.subscribers.tally.measure(start..u64::MAX);
        self.publish(Schedule::new(Rate::PerSecond(rate), start, length)).await?;
        self.drain().await?;
        Ok(self.subscribers.tally.latency())
    }

    /// Publishes while `other` runs; returns what that does, and the latencies meanwhile.
    pub(crate) async fn run_beside<T>(
        &mut self,
        rate: f64,
        other: impl Future<Output = Result<T, Failure>>,
    ) -> Result<(T, Latency), Failure> {
        let (tally, clock) = (self.subscribers.tally.clone(), self.clock);
        let mut start = clock.now();
        tally.measure(start..u64::MAX);
        let is_done = Cell::new(false);
        let other = async {
            let outcome = other.await;
            tally.end_window(clock.now());
            is_done.set(true);
            outcome
        };
        let publishing = async {
            while !is_done.get() {
                self.publish(Schedule::new(Rate::PerSecond(rate), start, PIECE)).await?;
                start += PIECE.as_nanos() as u64;
            }
            Ok(())
        };
        let (outcome, ()) = tokio::try_join!(other, publishing)?;
        self.drain().await?;
        Ok((outcome, tally.latency()))
    }

    /// What was published so far, kept up to date.
    pub(crate) fn sent(&self) -> Rc<Sent> {
        self.publisher.sent()
    }

    /// Publishes that the server had no room for.
    pub(crate) fn refused(&self) -> u64 {
        match &self.backend {
            Some(backend) => backend.answers.refused.borrow().len() as u64,
            None => self.subscribers.tally.refused(),
        }
    }

    /// Deliveries that the publishes so far should lead to.
    pub(crate) fn expected(&self) -> u64 {
        self.taken() * self.audience
    }

    /// The same on another node with as many subscribers, where nobody publishes.
    pub(crate) fn expected_beside(&self) -> u64 {
        let is_subscriber = self.backend.is_none();
        self.taken() * (self.audience - u64::from(is_subscriber))
    }

    fn taken(&self) -> u64 {
        self.sent().count.get() - self.refused()
    }

    /// How many deliveries are missing; below 0, how many are too many.
    pub(crate) fn lost(&self) -> i64 {
        let received = self.subscribers.tally.deliveries.get();
        self.expected().cast_signed() - received.cast_signed()
    }
}

/// A feed beside something else ends at the end of a piece, so that no publish is cut off.
const PIECE: Duration = Duration::from_secs(1);
