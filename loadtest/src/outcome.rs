//! What came of a fan-out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::feed::Feed;
use crate::meter::{Reading, Usage};
use crate::schedule::Rate;
use crate::tally::{Latency, millis};

/// The figures of one measurement. Rates, latency and CPU are those of the window after the
/// warm-up; counts are those of the whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// Those that only subscribe.
    pub(crate) connections: u32,
    /// Bytes of a delivered payload.
    pub(crate) payload_bytes: u64,
    /// Publishes a second that the schedule asked for; `None` is flat out.
    pub(crate) offered_per_second: Option<f64>,
    pub(crate) publishes_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) published: u64,
    pub(crate) refused: u64,
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) lost: i64,
    /// Timed deliveries that came after a later publish or again, if each connection has one channel: across
    /// channels there is no order.
    pub(crate) disordered: Option<u64>,
    /// On other nodes.
    pub(crate) beside: Vec<Beside>,
    /// Errors that the server answered with, by code.
    pub(crate) errors: BTreeMap<u32, u64>,
    /// Connections that ended, by how.
    pub(crate) ends: BTreeMap<String, u32>,
    pub(crate) latency_ms: Latency,
    /// The most that a publish was written after it was due.
    pub(crate) late_ms: f64,
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// The server's CPU time; this and memory only if its process is known.
    pub(crate) us_per_delivery: Option<f64>,
    pub(crate) us_per_connect: Option<f64>,
    pub(crate) connects_per_second: f64,
    pub(crate) memory: Memory,
}

/// What came to the subscribers of another node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Beside {
    pub(crate) address: SocketAddr,
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) disordered: Option<u64>,
}

/// Resident bytes of the server.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Without connections.
    pub(crate) before: u64,
    /// With all of them, some time after the last came.
    pub(crate) idle: u64,
    /// The same after each was sent something.
    pub(crate) after_burst: u64,
}

/// Counters at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) reading: Reading,
    pub(crate) sent: u64,
    pub(crate) deliveries: u64,
}

impl Outcome {
    pub(crate) fn new(connections: u32, rate: Rate) -> Self {
        let offered_per_second = match rate {
            Rate::PerSecond(rate) => Some(rate),
            Rate::FlatOut => None,
        };
        Self { connections, offered_per_second, ..Self::default() }
    }

    pub(crate) fn count_connects(&mut self, usage: &Usage) {
        self.connects_per_second = f64::from(self.connections) / usage.seconds;
        self.us_per_connect = usage.server_us_per(self.connections.into());
    }

    /// Counts the window that is measured.
    pub(crate) fn count_window(&mut self, before: &Count, after: &Count) {
        self.usage = after.reading.since(&before.reading);
        let deliveries = after.deliveries - before.deliveries;
        self.publishes_per_second = (after.sent - before.sent) as f64 / self.usage.seconds;
        self.deliveries_per_second = deliveries as f64 / self.usage.seconds;
        self.us_per_delivery = self.usage.server_us_per(deliveries);
    }

    /// Counts the whole run, once nothing is under way any more.
    pub(crate) fn count_run(&mut self, feed: &Feed) {
        let tally = &feed.subscribers.tally;
        self.payload_bytes = tally.payload.get();
        self.published = feed.sent().count.get();
        self.refused = feed.refused();
        self.expected = feed.expected();
        self.received = tally.deliveries.get();
        self.lost = feed.lost();
        self.errors.clone_from(&tally.errors.borrow());
        self.ends = tally.ends();
        self.latency_ms = tally.latency();
        self.late_ms = millis(feed.sent().late.get());
        self.usage.limit = self.usage.limit.or_else(|| self.lateness());
    }

    fn lateness(&self) -> Option<&'static str> {
        (self.late_ms > LATE_MS && self.usage.server_has_room())
            .then_some("the publisher fell behind its schedule while the server had CPU to spare")
    }

    /// What a table shows: names and values.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let offered =
            self.offered_per_second.map_or("all it takes".to_owned(), |rate| rate.to_string());
        let mut rows = vec![
            ("connections", self.connections.to_string()),
            ("payload", format!("{} B", self.payload_bytes)),
            ("publishes/s", format!("{:.0} of {offered}", self.publishes_per_second)),
            ("deliveries/s", format!("{:.0}", self.deliveries_per_second)),
            ("deliveries", deliveries(self.expected, self.received, self.disordered)),
            ("refused", format!("{} of {} publishes", self.refused, self.published)),
            ("latency", self.latency_ms.to_string()),
            ("published late", format!("by at most {:.2} ms", self.late_ms)),
            ("connects/s", format!("{:.0}", self.connects_per_second)),
        ];
        rows.extend(self.beside.iter().map(|beside| {
            let Beside { address, expected, received, disordered } = beside;
            let deliveries = deliveries(*expected, *received, *disordered);
            ("beside", format!("{deliveries} at {address}"))
        }));
        let micros = |micros: f64| format!("{micros:.3} µs");
        rows.extend(self.us_per_delivery.map(|cpu| ("CPU a delivery", micros(cpu))));
        rows.extend(self.us_per_connect.map(|cpu| ("CPU a connect", micros(cpu))));
        if self.usage.server_cpu.is_some() {
            rows.push(("memory a connection", self.memory_text()));
        }
        rows.extend(self.errors.iter().map(|(code, count)| ("error", format!("{code}: {count}"))));
        rows.extend(self.ends.iter().map(|(end, count)| ("ended", format!("{end}: {count}"))));
        rows.extend(self.usage.rows());
        rows
    }

    /// What each connection added to the server's memory.
    pub(crate) fn memory_text(&self) -> String {
        let Memory { before, idle, after_burst } = self.memory;
        let [idle, after_burst] = [idle, after_burst]
            .map(|then| (then as f64 - before as f64) / 1024.0 / f64::from(self.connections));
        format!("{idle:.2} KiB idle, {after_burst:.2} KiB after a burst")
    }
}

fn deliveries(expected: u64, received: u64, disordered: Option<u64>) -> String {
    let lost = expected.cast_signed() - received.cast_signed();
    let disordered = disordered.map(|count| format!(", {count} out of order")).unwrap_or_default();
    format!("{received} of {expected}, {lost} lost{disordered}")
}

/// A publisher that is later than this has fallen behind.
const LATE_MS: f64 = 100.0;
