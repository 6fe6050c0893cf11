//! A steady feed: one chat connection publishes to many subscribers while something else happens.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::publisher::{Encoder, Publisher};
use crate::reader::Scratch;
use crate::schedule::{Rate, Schedule};
use crate::subscribers::Subscribers;
use crate::tally::Latency;
use crate::target::Target;

/// The feed's connections.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) subscribers: Subscribers,
    clock: Clock,
    publisher: Publisher,
    rate: Rate,
}

impl Feed {
    /// Connects users, the last of whom publishes bodies of `size` bytes.
    pub(crate) async fn open(
        target: &Target,
        users: Range<u32>,
        rate: f64,
        size: usize,
        scratch: &Scratch,
    ) -> Result<Self, Failure> {
        let clock = scratch.clock;
        let mut subscribers = Subscribers::new(scratch, 1);
        let publishing = users.end - 1;
        subscribers.open(target, users.start..publishing, || ()).await?;
        let write = subscribers.add_publisher(target.connect(publishing).await?, |_| ());
        subscribers.call_roll().await?;
        let publisher = Publisher::new(write, Encoder::chat(0, size), clock)?;
        Ok(Self { subscribers, clock, publisher, rate: Rate::PerSecond(rate) })
    }

    /// Publishes for so long; returns the latencies once all is delivered.
    pub(crate) async fn run(&mut self, length: Duration) -> Result<Latency, Failure> {
        let start = self.clock.now();
        self.subscribers.tally.measure(start..u64::MAX);
        self.publisher.run(Schedule::new(self.rate, start, length)).await?;
        self.drain().await;
        Ok(self.subscribers.tally.latency())
    }

    /// Publishes while `other` runs; returns what that does, and the latencies.
    pub(crate) async fn run_beside<T>(
        &mut self,
        other: impl Future<Output = Result<T, Failure>>,
    ) -> Result<(T, Latency), Failure> {
        let mut start = self.clock.now();
        self.subscribers.tally.measure(start..u64::MAX);
        let is_done = Cell::new(false);
        let other = async {
            let outcome = other.await;
            self.subscribers.tally.end_window(self.clock.now());
            is_done.set(true);
            outcome
        };
        let publishing = async {
            while !is_done.get() {
                self.publisher.run(Schedule::new(self.rate, start, PIECE)).await?;
                start += PIECE.as_nanos() as u64;
            }
            Ok(())
        };
        let (outcome, ()) = tokio::try_join!(other, publishing)?;
        self.drain().await;
        Ok((outcome, self.subscribers.tally.latency()))
    }

    /// Deliveries that all publishes so far should lead to.
    pub(crate) fn expected(&self) -> u64 {
        self.publisher.sent().get() * self.subscribers.len() as u64
    }

    async fn drain(&self) {
        self.subscribers.drain(self.expected()).await;
    }
}

/// The feed may end at the end of a piece, so that no publish is cut off.
const PIECE: Duration = Duration::from_secs(1);
