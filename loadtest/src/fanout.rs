//! `fanout`: one publisher, many subscribers; what it costs and how long it takes.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use crate::channels::Channels;
use crate::cli::{Fanout, Protocol, Publish};
use crate::clock::{Clock, Timer};
use crate::failure::Failure;
use crate::feed::{Feed, Reach, Source};
use crate::meter::Meter;
use crate::outcome::{Beside, Count, Outcome};
use crate::progress;
use crate::reader::Scratch;
use crate::report;
use crate::schedule::{Rate, Schedule};
use crate::subscribers::Subscribers;
use crate::target::{Target, Wire};

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Fanout) -> Result<(), Failure> {
    let server = &options.server;
    let target = Target::fanfare(&server.url, &server.secret, wire(options)?)?;
    let node = |url: &String| Target::fanfare(url, &server.secret, wire(options)?);
    let publish_at = options.publish_url.as_ref().map(node).transpose()?;
    let beside = options.beside.iter().map(node).collect::<Result<_, _>>()?;
    let meter = Meter::new(options.server.pid)?;
    let load = Load { publish_at, beside, ..Load::new(options)? };
    let outcome = measure(&target, &load, meter, "fanout").await?;
    report::print(options.server.json, &outcome, || outcome.rows())
}

/// What the connections speak, and the channels that they subscribe to.
pub(crate) fn wire(options: &Fanout) -> Result<Wire, Failure> {
    let channels = Channels::new(options.channels, options.subscriptions_per_connection)?;
    match options.protocol {
        Protocol::Chat if options.channels > 1 => {
            Err(Failure::Setup("chat has no channels; use --protocol centrifuge or sse".to_owned()))
        }
        Protocol::Chat => Ok(Wire::Chat),
        Protocol::Centrifuge => Ok(Wire::Centrifuge(channels)),
        Protocol::Sse => Ok(Wire::Sse(channels)),
    }
}

/// What is put on a server.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    connections: u32,
    rate: Rate,
    burst: u32,
    warmup: Duration,
    duration: Duration,
    settle: Duration,
    source: Source,
    /// How many get a publish.
    audience: u64,
    /// Whether a connection is to get everything in order: with one channel each it is.
    is_ordered: bool,
    /// Where it is published, if not where the subscribers are.
    publish_at: Option<Target>,
    /// Nodes where as many subscribe.
    beside: Vec<Target>,
}

impl Load {
    pub(crate) fn new(options: &Fanout) -> Result<Self, Failure> {
        let (size, wire) = (options.size, wire(options)?);
        let key = || {
            let key = options.api_key.clone();
            key.ok_or_else(|| Failure::Setup("to publish over HTTP needs --api-key".to_owned()))
        };
        let source = match (options.publish, wire) {
            (Publish::Peer, Wire::Centrifuge(channels)) => Source::Client(size, channels),
            (Publish::Peer, Wire::Bare | Wire::Chat) => Source::Chat(size),
            (Publish::Peer, Wire::Sse(_)) => {
                let text = "who reads a stream cannot publish; use --publish http";
                return Err(Failure::Setup(text.to_owned()));
            }
            (Publish::Http, Wire::Centrifuge(channels) | Wire::Sse(channels)) => {
                Source::Publish(size, key()?, channels)
            }
            (Publish::Http, Wire::Bare | Wire::Chat) => Source::Broadcast(size, key()?),
            (Publish::Batch, Wire::Centrifuge(channels) | Wire::Sse(channels)) => {
                Source::Batch(size, key()?, channels)
            }
            (Publish::Batch, Wire::Bare | Wire::Chat) => {
                let text = "a batch publishes to channels; use --protocol centrifuge or sse";
                return Err(Failure::Setup(text.to_owned()));
            }
        };
        Ok(Self {
            connections: options.connections,
            audience: source.audience(options.connections)?,
            is_ordered: options.subscriptions_per_connection == 1
                && (options.channels == 1 || options.publish != Publish::Peer),
            rate: options.rate,
            burst: options.burst,
            warmup: options.warmup,
            duration: options.duration,
            settle: options.settle,
            source,
            publish_at: None,
            beside: Vec::new(),
        })
    }

    /// The same for a floor server, whose frames shall hold payloads of `payload` bytes.
    pub(crate) fn for_floor(&self, payload: u64, reach: Reach) -> Self {
        Self { source: Source::Bare(payload as usize, reach), ..self.clone() }
    }

    /// The same for the chat, fed by a backend, whose frames shall hold payloads of `payload` bytes.
    pub(crate) fn for_chat(&self, payload: u64) -> Result<Self, Failure> {
        match &self.source {
            Source::Publish(_, key, _) if self.audience == u64::from(self.connections) => {
                let size = payload as usize - NOTIFICATION.len();
                Ok(Self { source: Source::Broadcast(size, key.clone()), ..self.clone() })
            }
            _ => Err(Failure::Setup(
                "chat compares with one channel, both fed alike; \
                 use --protocol centrifuge --publish http"
                    .to_owned(),
            )),
        }
    }

    /// Of how many deliveries to a connection one is timed, so that timing stays cheap.
    fn stride(&self) -> u32 {
        match self.rate {
            Rate::PerSecond(rate) => (rate * self.audience as f64 / TIMED).ceil() as u32,
            Rate::FlatOut => 16,
        }
    }
}

/// Connects, publishes, waits for what is under way, disconnects.
pub(crate) async fn measure(
    target: &Target,
    load: &Load,
    meter: Meter,
    title: &str,
) -> Result<Outcome, Failure> {
    let clock = Clock::start();
    let mut outcome = Outcome::new(load.connections, load.rate);
    let scratch = Scratch::new(clock);
    let mut subscribers = Subscribers::new(&scratch, load.stride());

    outcome.memory.before = meter.resident()?;
    let before = meter.read()?;
    let bar = progress::bar(title, load.connections.into());
    subscribers.open(target, 1..load.connections + 1, || bar.inc(1)).await?;
    outcome.count_connects(&meter.read()?.since(&before));
    sleep(load.settle).await;
    outcome.memory.idle = meter.resident()?;

    let mut beside = Vec::new();
    for node in &load.beside {
        beside.push(open_beside(node, load, &scratch, beside.len() as u32 + 1).await?);
    }
    let publishing = load.connections + 1;
    let publish_at = load.publish_at.as_ref().unwrap_or(target);
    let mut feed = Feed::open(publish_at, subscribers, &load.source, publishing, clock).await?;
    // Sending may leave memory behind, so every connection is sent something once.
    feed.publish(Schedule::once(BURST, clock.now())).await?;
    feed.drain().await?;
    sleep(load.settle).await;
    outcome.memory.after_burst = meter.resident()?;

    publish(&mut feed, load, meter, clock, title, &mut outcome).await?;
    outcome.count_run(&feed);
    outcome.disordered = load.is_ordered.then(|| feed.subscribers.tally.disordered.get());
    for (node, subscribers) in load.beside.iter().zip(beside) {
        subscribers.drain(feed.expected_beside()).await;
        let (expected, received) = (feed.expected_beside(), subscribers.tally.deliveries.get());
        let disordered = load.is_ordered.then(|| subscribers.tally.disordered.get());
        outcome.beside.push(Beside { address: node.address(), expected, received, disordered });
    }
    Ok(outcome)
}

/// As many subscribers on another node, whose users are of their own.
async fn open_beside(
    node: &Target,
    load: &Load,
    scratch: &Scratch,
    number: u32,
) -> Result<Subscribers, Failure> {
    let mut subscribers = Subscribers::new(scratch, load.stride());
    let first = number * (load.connections + 1) + 1;
    subscribers.open(node, first..first + load.connections, || ()).await?;
    if node.answers_pings() {
        subscribers.call_roll().await?;
    }
    Ok(subscribers)
}

/// Warms up and publishes; counts what happens in the window after the warm-up.
async fn publish(
    feed: &mut Feed,
    load: &Load,
    meter: Meter,
    clock: Clock,
    title: &str,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let (tally, sent) = (feed.subscribers.tally.clone(), feed.sent());
    let length = load.warmup + load.duration;
    let schedule = Schedule::new(load.rate, clock.now(), length).in_bursts(load.burst);
    let window = schedule.end() - load.duration.as_nanos() as u64..schedule.end();
    tally.measure(window.clone());
    sent.late.set(0);
    let count = || {
        let reading = meter.read()?;
        Ok::<_, io::Error>(Count {
            reading,
            sent: sent.count.get(),
            deliveries: tally.deliveries.get(),
        })
    };
    let mut timer = Timer::new(clock)?;
    let measuring = async {
        timer.until(window.start).await?;
        let before = count()?;
        timer.until(window.end).await?;
        Ok((before, count()?))
    };
    let publishing = async { tokio::try_join!(measuring, feed.publish(schedule)) };
    let message = || format!("{} deliveries", tally.deliveries.get());
    let ((before, after), ()) = tokio::select! {
        done = publishing => done?,
        never = progress::watch(title, length, message) => match never {},
    };
    outcome.count_window(&before, &after);
    feed.drain().await
}

/// What is around the body that a backend sends to the chat.
const NOTIFICATION: &str = r#"{"type":"notification","body":""}"#;

/// Publishes of the one burst after which memory is read.
const BURST: u32 = 64;

/// Deliveries a second that are timed, at most.
const TIMED: f64 = 250_000.0;
