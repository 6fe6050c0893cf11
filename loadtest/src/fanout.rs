//! `fanout`: one publisher, many subscribers; what it costs and how long it takes.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use crate::backend::Backend;
use crate::cli::{Fanout, Publish};
use crate::clock::{Clock, Timer};
use crate::failure::Failure;
use crate::outcome::{Outcome, Sample};
use crate::process::Process;
use crate::progress;
use crate::publisher::{Encoder, Publisher};
use crate::reader::Scratch;
use crate::report;
use crate::schedule::{Rate, Schedule};
use crate::subscribers::Subscribers;
use crate::target::Target;

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Fanout) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret)?;
    let server = options.server.pid.map(Process::new).transpose()?;
    let outcome = measure(&target, &Load::new(options)?, server, "fanout").await?;
    report::print(options.server.json, &outcome, || outcome.rows())
}

/// What is put on a server.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) connections: u32,
    pub(crate) rate: Rate,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) settle: Duration,
    pub(crate) source: Source,
}

/// Who publishes what.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A chat connection: bodies of so many bytes.
    Chat(usize),
    /// A backend with a key: the same.
    Http(usize, String),
    /// A connection to the floor server: payloads of so many bytes.
    Bare(usize),
}

impl Load {
    pub(crate) fn new(options: &Fanout) -> Result<Self, Failure> {
        let source = match (options.publish, &options.api_key) {
            (Publish::Chat, _) => Source::Chat(options.size),
            (Publish::Http, Some(key)) => Source::Http(options.size, key.clone()),
            (Publish::Http, None) => {
                return Err(Failure::Setup("--publish http needs --api-key".to_owned()));
            }
        };
        Ok(Self {
            connections: options.connections,
            rate: options.rate,
            warmup: options.warmup,
            duration: options.duration,
            settle: options.settle,
            source,
        })
    }

    /// The same for a floor server, whose frames shall hold payloads of `payload` bytes.
    pub(crate) fn for_floor(&self, payload: u64) -> Self {
        Self { source: Source::Bare(payload as usize), ..self.clone() }
    }

    /// Of how many deliveries to a connection one is timed, so that timing stays cheap.
    fn stride(&self) -> u32 {
        match self.rate {
            Rate::PerSecond(rate) => (rate * f64::from(self.connections) / TIMED).ceil() as u32,
            Rate::FlatOut => 16,
        }
    }
}

/// Connects, publishes, waits for what is under way, disconnects.
pub(crate) async fn measure(
    target: &Target,
    load: &Load,
    server: Option<Process>,
    title: &str,
) -> Result<Outcome, Failure> {
    let clock = Clock::start();
    let mut run = Run {
        clock,
        server,
        title,
        subscribers: Subscribers::new(&Scratch::new(clock), load.stride()),
        outcome: Outcome::default(),
    };
    run.connect(target, load).await?;
    let mut origin = Origin::open(target, load, &mut run.subscribers, clock).await?;
    if !target.is_floor() {
        run.subscribers.call_roll().await?;
    }
    run.burst(load, &mut origin).await?;
    run.publish(load, &mut origin).await?;
    Ok(run.outcome)
}

/// One measurement on its way.
struct Run<'a> {
    clock: Clock,
    server: Option<Process>,
    title: &'a str,
    subscribers: Subscribers,
    outcome: Outcome,
}

impl Run<'_> {
    async fn connect(&mut self, target: &Target, load: &Load) -> Result<(), Failure> {
        let bar = progress::bar(self.title, load.connections.into());
        self.outcome.memory.before = self.resident()?;
        let before = self.sample(0)?;
        self.subscribers.open(target, 1..load.connections + 1, || bar.inc(1)).await?;
        let after = self.sample(0)?;
        self.outcome.count_connects(load.connections, &before, &after);
        sleep(load.settle).await;
        self.outcome.memory.idle = self.resident()?;
        Ok(())
    }

    /// Has every connection send once, since that may leave memory behind.
    async fn burst(&mut self, load: &Load, origin: &mut Origin) -> Result<(), Failure> {
        origin.publisher.run(Schedule::burst(BURST, self.clock.now())).await?;
        self.drain(origin).await?;
        sleep(load.settle).await;
        self.outcome.memory.after_burst = self.resident()?;
        Ok(())
    }

    async fn publish(&mut self, load: &Load, origin: &mut Origin) -> Result<(), Failure> {
        let start = self.clock.now();
        let schedule = Schedule::new(load.rate, start, load.warmup + load.duration);
        let window = start + load.warmup.as_nanos() as u64..schedule.end();
        self.subscribers.tally.measure(window.clone());
        let sent = origin.publisher.sent();
        let mut timer = Timer::new(self.clock)?;
        let sampled = async {
            timer.until(window.start).await?;
            let before = self.sample(sent.get())?;
            timer.until(window.end).await?;
            Ok((before, self.sample(sent.get())?))
        };
        let published = async { tokio::try_join!(sampled, origin.publisher.run(schedule)) };
        let tally = &self.subscribers.tally;
        let message = || format!("{} deliveries", tally.deliveries.get());
        let ((before, after), ()) = tokio::select! {
            done = published => done?,
            () = progress::watch(self.title, load.warmup + load.duration, message) => unreachable!(),
        };
        self.drain(origin).await?;
        self.outcome.count(load, &before, &after);
        let refused = origin.refused(&self.subscribers);
        self.outcome.finish(&self.subscribers, sent.get(), refused);
        Ok(())
    }

    /// Waits for what is still under way.
    async fn drain(&self, origin: &Origin) -> Result<(), Failure> {
        let sent = origin.publisher.sent().get();
        if let Some(backend) = &origin.backend {
            backend.answers.wait(sent).await?;
        }
        let admitted = sent - origin.refused(&self.subscribers);
        self.subscribers.drain(admitted * self.subscribers.len() as u64).await;
        Ok(())
    }

    fn resident(&self) -> io::Result<u64> {
        self.server.map_or(Ok(0), Process::resident)
    }

    fn sample(&self, sent: u64) -> io::Result<Sample> {
        Ok(Sample {
            at: self.clock.now(),
            sent,
            deliveries: self.subscribers.tally.deliveries.get(),
            generator: Process::own().cpu()?,
            server: self.server.map(Process::cpu).transpose()?,
        })
    }
}

/// What publishes, and for HTTP what tells how that went.
struct Origin {
    publisher: Publisher,
    backend: Option<Backend>,
}

impl Origin {
    async fn open(
        target: &Target,
        load: &Load,
        subscribers: &mut Subscribers,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let (encoder, backend) = match &load.source {
            Source::Chat(size) => (Encoder::chat(0, *size), None),
            Source::Bare(size) => (Encoder::bare(0, *size), None),
            Source::Http(size, key) => {
                let encoder = Encoder::http(0, *size, &target.address().to_string(), key);
                (encoder, Some(Backend::connect(target, key).await?))
            }
        };
        let write = match &backend {
            Some(backend) => backend.write.clone(),
            None => subscribers.add_publisher(target.connect(load.connections + 1).await?, |_| ()),
        };
        Ok(Self { publisher: Publisher::new(write, encoder, clock)?, backend })
    }

    /// Publishes that the server had no room for.
    fn refused(&self, subscribers: &Subscribers) -> u64 {
        match &self.backend {
            Some(backend) => backend.answers.refused.borrow().len() as u64,
            None => subscribers.tally.refused(),
        }
    }
}

/// Publishes of the one burst after which memory is read.
const BURST: u32 = 64;

/// Deliveries a second that are timed, at most.
const TIMED: f64 = 250_000.0;
