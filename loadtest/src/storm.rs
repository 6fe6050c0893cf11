//! `storm`: many connect, all go at once, all connect again, while a feed runs.

use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::ops::Range;
use std::time::Instant;

use serde::Serialize;

use crate::cli::Storm;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::feed::{Feed, Source};
use crate::meter::{Meter, Usage};
use crate::progress;
use crate::reader::Scratch;
use crate::report;
use crate::subscribers::Subscribers;
use crate::tally::{Latency, millis};
use crate::target::{Target, Wire};

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Storm) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret, Wire::Chat)?;
    let meter = Meter::new(options.server.pid)?;
    let scratch = Scratch::new(Clock::start());
    let mut subscribers = Subscribers::new(&scratch, 1);
    subscribers.open(&target, repeat_n(FED, options.feed_connections as usize), || ()).await?;
    // Only the feed's own user gets it, or the storm would be fed as well.
    let source = Source::Unicast(options.size, options.api_key.clone(), FED);
    let mut feed = Feed::open(&target, subscribers, &source, FED, scratch.clock).await?;
    let quiet = feed.run(options.feed_rate, options.quiet).await?;

    feed.sent().late.set(0);
    let before = meter.read()?;
    let users = FED + 1..FED + 1 + options.connections;
    let storm = async {
        let (crowd, first) = connect(&target, users.clone(), &scratch, "connect").await?;
        crowd.close().await;
        let (_, again) = connect(&target, users, &scratch, "connect again").await?;
        Ok([first, again])
    };
    let (waves, storm) = feed.run_beside(options.feed_rate, storm).await?;
    let usage = meter.read()?.since(&before);
    let outcome = Outcome {
        connections: options.connections,
        quiet_ms: quiet,
        storm_ms: storm,
        ratio_p99: storm.p99 / quiet.p99,
        waves,
        feed_lost: feed.lost(),
        feed_late_ms: millis(feed.sent().late.get()),
        feed_ends: feed.subscribers.tally.ends(),
        usage,
    };
    report::print(options.server.json, &outcome, || outcome.rows())
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    connections: u32,
    /// Latency of the feed before and during the storm.
    quiet_ms: Latency,
    storm_ms: Latency,
    ratio_p99: f64,
    waves: [Wave; 2],
    feed_lost: i64,
    /// The most that a publish of the feed was written after it was due.
    feed_late_ms: f64,
    feed_ends: BTreeMap<String, u32>,
    /// During the storm.
    #[serde(flatten)]
    usage: Usage,
}

/// One time that all connect.
#[derive(Debug, Serialize)]
struct Wave {
    connected: u32,
    refused: u32,
    /// Why the first one was refused.
    refusal: Option<String>,
    /// Connected, and closed before all were.
    ended: BTreeMap<String, u32>,
    per_second: f64,
}

async fn connect(
    target: &Target,
    users: Range<u32>,
    scratch: &Scratch,
    title: &str,
) -> Result<(Subscribers, Wave), Failure> {
    let bar = progress::bar(title, users.len() as u64);
    let mut crowd = Subscribers::new(scratch, 1);
    let (mut refused, mut refusal) = (0, None);
    let began = Instant::now();
    let mut opening = target.connect_all(users);
    while let Some(link) = opening.next().await {
        bar.inc(1);
        match link {
            Ok(link) => drop(crowd.add(link, |_| ())),
            Err(failure) => {
                refused += 1;
                refusal.get_or_insert(failure.to_string());
            }
        }
    }
    let connected = crowd.len() as u32;
    let per_second = f64::from(connected) / began.elapsed().as_secs_f64();
    let wave = Wave { connected, refused, refusal, ended: crowd.tally.ends(), per_second };
    Ok((crowd, wave))
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("feed, quiet", self.quiet_ms.to_string()),
            ("feed, storm", self.storm_ms.to_string()),
            ("ratio of p99", format!("{:.2}", self.ratio_p99)),
            ("feed lost", self.feed_lost.to_string()),
            ("feed published late", format!("by at most {:.2} ms", self.feed_late_ms)),
        ];
        for (name, wave) in ["connect", "connect again"].into_iter().zip(&self.waves) {
            let Wave { connected, refused, per_second, .. } = wave;
            let text = format!(
                "{connected} of {}, {refused} refused, {per_second:.0}/s",
                self.connections
            );
            rows.push((name, text));
            rows.extend(wave.refusal.iter().map(|refusal| ("refused", refusal.clone())));
            rows.extend(wave.ended.iter().map(|(end, count)| ("ended", format!("{end}: {count}"))));
        }
        let ends = self.feed_ends.iter();
        rows.extend(ends.map(|(end, count)| ("feed ended", format!("{end}: {count}"))));
        rows.extend(self.usage.rows());
        rows
    }
}

/// The user whose connections get the feed.
const FED: u32 = 1;
