//! `audit --channels`: subscribers that are cut or stall must get every admitted publish all the same,
//! once and in order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::audit::{self, publish};
use crate::author::{Author, Over};
use crate::backend::Backend;
use crate::channels::Channels;
use crate::cli::Audit;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::feed::Source;
use crate::opening::Opening;
use crate::publisher::{Encoder, Publisher};
use crate::report;
use crate::restless::{Counts, Crowd};
use crate::schedule::Schedule;
use crate::stream::Stream;
use crate::target::{Target, Wire};
use crate::trail::Published;

/// Runs the command and prints its report; fails if anything is wrong.
pub(crate) async fn run(options: &Audit, channels: u32) -> Result<(), Failure> {
    let channels = Channels::new(channels, options.subscriptions_per_connection)?;
    let wire = Wire::Centrifuge(channels);
    let target = Target::fanfare(&options.server.url, &options.server.secret, wire)?;
    let clock = Clock::start();
    let crowd = Crowd::new(&target, channels, options);
    let mut everybody = subscribe(&crowd, options.connections).await?;
    let (mut publishers, mut authors) = (Vec::new(), Vec::new());
    for number in 0..options.publishers {
        let (publisher, author) = if number.is_multiple_of(2) {
            open_peer(&crowd, options, number, clock, &mut everybody).await?
        } else {
            open_backend(&target, channels, options, number, clock).await?
        };
        publishers.push(publisher);
        authors.push(author);
    }
    let schedule = Schedule::new(options.rate, clock.now(), options.duration);
    let Everybody { streams, mut living } = everybody;
    let ledger = Ledger { channels, counts: crowd.counts, streams, authors };
    tokio::select! {
        done = ledger.fill(publish(publishers, schedule)) => done?,
        Some(ended) = living.join_next() => {
            return match ended {
                Ok(Err(failure)) => Err(failure),
                Ok(Ok(never)) => match never {},
                Err(error) => Err(Failure::Run(error.to_string())),
            };
        }
    }
    let outcome = ledger.outcome();
    report::print(options.server.json, &outcome, || outcome.rows())?;
    audit::check(&outcome.faults)
}

/// All subscribers.
#[derive(Default)]
struct Everybody {
    streams: Streams,
    /// Ends only by a failure.
    living: JoinSet<Result<Infallible, Failure>>,
}

/// What each subscriber got, of each channel.
type Streams = Vec<Rc<RefCell<Vec<Stream>>>>;

/// Those that only subscribe, each from now on.
async fn subscribe(crowd: &Crowd, connections: u32) -> Result<Everybody, Failure> {
    let crowd = crowd.clone();
    let subscribing = (0..connections).map(move |user| {
        let crowd = crowd.clone();
        async move { crowd.open(user).await }
    });
    let mut everybody = Everybody::default();
    for (restless, client) in Opening::new(subscribing).all().await? {
        everybody.streams.push(restless.streams.clone());
        everybody.living.spawn_local(restless.run(client));
    }
    Ok(everybody)
}

/// A publisher that is a subscriber of all channels, and is never cut.
async fn open_peer(
    crowd: &Crowd,
    options: &Audit,
    number: u16,
    clock: Clock,
    everybody: &mut Everybody,
) -> Result<(Publisher, Author), Failure> {
    let (peer, client) = crowd.open_peer(options.connections + u32::from(number)).await?;
    everybody.streams.push(peer.streams.clone());
    let source = Source::Client(options.size, crowd.channels);
    let encoder = Encoder::new(number, &source, crowd.target.address());
    let publisher = Publisher::new(client.writer(), encoder, clock)?;
    let (sent, over) = (publisher.sent(), Over::Peer(peer.answers.clone()));
    everybody.living.spawn_local(peer.stay(client));
    Ok((publisher, Author { name: format!("publishing peer {number}"), sent, over }))
}

async fn open_backend(
    target: &Target,
    channels: Channels,
    options: &Audit,
    number: u16,
    clock: Clock,
) -> Result<(Publisher, Author), Failure> {
    let backend = Backend::connect(target, &options.api_key).await?;
    let source = Source::Publish(options.size, options.api_key.clone(), channels);
    let encoder = Encoder::new(number, &source, target.address());
    let publisher = Publisher::new(backend.writer.clone(), encoder, clock)?;
    let (sent, over) = (publisher.sent(), Over::Http(backend));
    Ok((publisher, Author { name: format!("http publisher {number}"), sent, over }))
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
                // What somebody did not get has no place in an order.
                let is_other = stream.forgiven == 0
                    && *orders.entry(stream.channel).or_insert(stream.trail.order())
                        != stream.trail.order();
                faults.extend(is_other.then(|| "came in another order than elsewhere".to_owned()));
                let of = format!("connection {number}, {}", stream.name);
                outcome.faults.extend(faults.into_iter().map(|fault| format!("{of}, {fault}")));
            }
        }
        outcome
    }
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
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
    faults: Vec<String>,
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
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
