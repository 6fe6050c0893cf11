//! The audit of channels: what was published, and what came of it at each subscriber.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::audit;
use crate::author::Author;
use crate::channels::Channels;
use crate::counts::Counts;
use crate::crowd::{Crowd, Everybody, Streams};
use crate::failure::Failure;
use crate::stream::Stream;
use crate::trail::Published;

/// Has all be published, and waits until it has come or is given up; says what came of it.
pub(crate) async fn run(
    crowd: &Crowd,
    mut everybody: Everybody,
    authors: Vec<Author>,
    publishing: impl Future<Output = Result<(), Failure>>,
) -> Result<Outcome, Failure> {
    let (counts, streams) = (crowd.counts.clone(), everybody.streams.clone());
    let ledger = Ledger { channels: crowd.channels, counts, streams, authors };
    tokio::select! {
        done = ledger.fill(publishing) => done?,
        failure = everybody.give_up() => return Err(failure),
    }
    Ok(ledger.outcome())
}

/// All that was published, and all that came.
struct Ledger {
    channels: Channels,
    counts: Rc<Counts>,
    streams: Streams,
    authors: Vec<Author>,
}

impl Ledger {
    /// Waits until all is published, answered, and come or given up.
    async fn fill(
        &self,
        publishing: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        publishing.await?;
        for author in &self.authors {
            author.settle().await?;
        }
        self.counts.is_calm.set(true);
        let admitted: Vec<u64> = (0..self.channels.count()).map(|it| self.admitted(it)).collect();
        let is_filled = |stream: &Stream| {
            stream.received + stream.forgiven >= admitted[stream.channel as usize]
        };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline
            && !self.streams.iter().all(|streams| streams.borrow().iter().all(is_filled))
        {
            sleep(TICK).await;
        }
        Ok(())
    }

    fn published(&self, channel: u32) -> Vec<Published> {
        self.authors.iter().map(|author| author.published(channel, self.channels)).collect()
    }

    fn admitted(&self, channel: u32) -> u64 {
        self.published(channel).iter().map(Published::admitted).sum()
    }

    fn outcome(&self) -> Outcome {
        let published: Vec<_> = (0..self.channels.count()).map(|it| self.published(it)).collect();
        let counts = &self.counts;
        let mut outcome = Outcome {
            connections: self.streams.len(),
            channels: self.channels.count(),
            published: self.authors.iter().map(Author::sent).sum(),
            admitted: published.iter().flatten().map(Published::admitted).sum(),
            cuts: counts.cuts.get(),
            stalls: counts.stalls.get(),
            recovered: counts.recovered.get(),
            publications: counts.publications.get(),
            unrecovered: counts.unrecovered.get(),
            unsubscribed: counts.unsubscribed.borrow().clone(),
            ends: counts.ends.borrow().clone(),
            faults: counts.faults.borrow().iter().map(|(what, n)| format!("{n}: {what}")).collect(),
            ..Outcome::default()
        };
        let mut orders = BTreeMap::new();
        for (number, streams) in self.streams.iter().enumerate() {
            for stream in &*streams.borrow() {
                let published = &published[stream.channel as usize];
                outcome.expected += published.iter().map(Published::admitted).sum::<u64>();
                outcome.received += stream.received;
                outcome.forgiven += stream.forgiven;
                let mut faults = stream.faults(published);
                // What somebody did not get, or twice, has no place in an order.
                let is_other = stream.forgiven == 0
                    && faults.is_empty()
                    && *orders.entry(stream.channel).or_insert(stream.trail.order())
                        != stream.trail.order();
                faults.extend(is_other.then(|| "came in another order than elsewhere".to_owned()));
                let at = stream.position.offset;
                let of = format!("connection {number}, {} up to {at}", stream.name);
                outcome.faults.extend(faults.into_iter().map(|fault| format!("{of}, {fault}")));
            }
        }
        outcome
    }
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    connections: usize,
    channels: u32,
    published: u64,
    admitted: u64,
    expected: u64,
    received: u64,
    cuts: u64,
    stalls: u64,
    /// Subscriptions that went on where they were, and the publications that they had missed.
    recovered: u64,
    publications: u64,
    /// Subscriptions of which the server said that it cannot, and what that cost.
    unrecovered: u64,
    forgiven: u64,
    /// Subscriptions that the server ended, by code.
    unsubscribed: BTreeMap<u32, u64>,
    /// Connections that the server ended, by how.
    ends: BTreeMap<String, u64>,
    pub(crate) faults: Vec<String>,
}

impl Outcome {
    /// What a table shows.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { connections, channels, published, admitted, expected, received, .. } = self;
        let Self { cuts, stalls, recovered, publications, unrecovered, forgiven, .. } = self;
        let mut rows = vec![
            ("connections", format!("{connections}, on {channels} channels")),
            ("publishes", format!("{published}, {} refused", published - admitted)),
            ("deliveries", format!("{received} of {expected}")),
            ("cuts", cuts.to_string()),
            ("stalls", stalls.to_string()),
            ("recovered", format!("{recovered} subscriptions, {publications} publications")),
            ("unrecovered", format!("{unrecovered} subscriptions, {forgiven} publications")),
        ];
        let unsubscribed = self.unsubscribed.iter();
        rows.extend(unsubscribed.map(|(code, n)| ("unsubscribed", format!("{code}: {n}"))));
        rows.extend(self.ends.iter().map(|(end, n)| ("ended", format!("{end}: {n}"))));
        rows.extend(audit::fault_rows(&self.faults));
        rows
    }
}

const TICK: Duration = Duration::from_millis(20);

/// How long the last may take: more than a stall and what the server does about it.
const PATIENCE: Duration = Duration::from_secs(20);
