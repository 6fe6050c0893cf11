//! `stalled`: peers that never read among those that do; then they read, and what they find counts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::cli::Stalled;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::feed::{Feed, Source};
use crate::meter::{Meter, Usage};
use crate::process::socket_memory;
use crate::reader::{Reader, Scratch};
use crate::report;
use crate::subscribers::Subscribers;
use crate::tally::Latency;
use crate::target::{Link, Target, Wire};

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Stalled) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret, Wire::Chat)?;
    let meter = Meter::new(options.server.pid)?;
    let scratch = Scratch::new(Clock::start());
    let publishing = options.connections + 1;
    let mut subscribers = Subscribers::new(&scratch, 1);
    subscribers.open(&target, 1..publishing, || ()).await?;
    let source = Source::Chat(options.size);
    let mut feed = Feed::open(&target, subscribers, &source, publishing, scratch.clock).await?;
    let before = meter.read()?;
    let (without_ms, memory_without) = run_watched(&mut feed, options, meter).await?;

    let stalled = publishing + 1..publishing + 1 + options.stalled;
    let links = target.connect_all(stalled).all().await?;
    let (with_ms, memory_with) = run_watched(&mut feed, options, meter).await?;
    let usage = meter.read()?.since(&before);
    let outcome = Outcome {
        without_ms,
        with_ms,
        ratio_p99: with_ms.p99 / without_ms.p99,
        lost: feed.lost(),
        ended: feed.subscribers.tally.ends(),
        memory_without,
        memory_with,
        usage,
        found: read_all(links, &scratch, options.patience).await,
    };
    report::print(options.server.json, &outcome, || outcome.rows())
}

/// Publishes, and looks at memory meanwhile.
async fn run_watched(
    feed: &mut Feed,
    options: &Stalled,
    meter: Meter,
) -> Result<(Latency, Memory), Failure> {
    let mut memory = Memory::default();
    let latency = tokio::select! {
        latency = feed.run(options.rate, options.duration) => latency?,
        failure = memory.watch(meter) => return Err(failure),
    };
    Ok((latency, memory))
}

/// Has stalled peers read, all at once, and counts what each finds at the end.
async fn read_all(
    links: Vec<Link>,
    scratch: &Scratch,
    patience: Duration,
) -> BTreeMap<String, u32> {
    let mut reading = JoinSet::new();
    for link in links {
        let reader = Reader::new(link, scratch);
        reading.spawn_local(timeout(patience, reader.run(|_, _| ())));
    }
    let mut found = BTreeMap::new();
    while let Some(read) = reading.join_next().await {
        let end = read.ok().and_then(Result::ok);
        let end = end.map_or_else(|| "nothing: it is still open".to_owned(), |end| end.to_string());
        *found.entry(end).or_default() += 1;
    }
    found
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Latency of those that read, without and with those that do not.
    without_ms: Latency,
    with_ms: Latency,
    ratio_p99: f64,
    lost: i64,
    /// Ends of those that read; there should be none.
    ended: BTreeMap<String, u32>,
    memory_without: Memory,
    memory_with: Memory,
    #[serde(flatten)]
    usage: Usage,
    /// What the stalled ones found once they read.
    found: BTreeMap<String, u32>,
}

/// The most there was, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Memory {
    /// Resident in the server, if its process is known.
    server: u64,
    /// In all TCP sockets of the machine, the load tester's own included.
    sockets: u64,
}

impl Memory {
    /// Looks every now and then until dropped, or until it cannot.
    async fn watch(&mut self, meter: Meter) -> Failure {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let read = meter.resident().and_then(|server| Ok((server, socket_memory()?)));
            match read {
                Ok((server, sockets)) => {
                    self.server = self.server.max(server);
                    self.sockets = self.sockets.max(sockets);
                }
                Err(error) => return error.into(),
            }
        }
    }
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let memory = |memory: Memory| {
            let [server, sockets] =
                [memory.server, memory.sockets].map(|bytes| bytes as f64 / (1 << 20) as f64);
            format!("at most {server:.1} MiB server, {sockets:.1} MiB sockets")
        };
        let mut rows = vec![
            ("latency without", self.without_ms.to_string()),
            ("latency with", self.with_ms.to_string()),
            ("ratio of p99", format!("{:.2}", self.ratio_p99)),
            ("lost", self.lost.to_string()),
            ("memory without", memory(self.memory_without)),
            ("memory with", memory(self.memory_with)),
        ];
        let found = self.found.iter().map(|(end, count)| ("found", format!("{end}: {count}")));
        rows.extend(found);
        rows.extend(self.ended.iter().map(|(end, count)| ("ended", format!("{end}: {count}"))));
        rows.extend(self.usage.rows());
        rows
    }
}
