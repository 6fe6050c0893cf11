//! What came of a fan-out, and whether it says something about the server.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::fanout::Load;
use crate::process::Cpu;
use crate::schedule::Rate;
use crate::subscribers::Subscribers;
use crate::tally::Latency;

/// The figures of one measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) connections: usize,
    /// Bytes of a delivered payload.
    pub(crate) payload_bytes: u64,
    pub(crate) offered_per_second: Option<f64>,
    pub(crate) publishes_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) connects_per_second: f64,
    /// Over the whole run, as are the deliveries.
    pub(crate) published: u64,
    pub(crate) refused: u64,
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) lost: i64,
    pub(crate) errors: BTreeMap<u32, u64>,
    pub(crate) ends: BTreeMap<String, u32>,
    pub(crate) latency_ms: Latency,
    /// Cores that the load tester used.
    pub(crate) generator_cpu: f64,
    /// Cores that the two were ready to use while others did.
    pub(crate) waited_cpu: f64,
    /// Cores that the server used; this and what follows only if its process is known.
    pub(crate) server_cpu: Option<f64>,
    pub(crate) us_per_delivery: Option<f64>,
    pub(crate) us_per_connect: Option<f64>,
    pub(crate) memory: Memory,
    /// Why the figures say more about the load tester than about the server, if they do.
    pub(crate) limit: Option<&'static str>,
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

impl Memory {
    /// What each connection added, in KiB.
    pub(crate) fn per_connection(self, then: u64, connections: usize) -> f64 {
        (then as f64 - self.before as f64) / 1024.0 / connections as f64
    }
}

/// Counters at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// In the clock's nanoseconds.
    pub(crate) at: u64,
    pub(crate) sent: u64,
    pub(crate) deliveries: u64,
    pub(crate) generator: Cpu,
    pub(crate) server: Option<Cpu>,
}

impl Sample {
    fn seconds_since(&self, before: &Self) -> f64 {
        Duration::from_nanos(self.at - before.at).as_secs_f64()
    }

    /// Seconds of CPU time that the server used.
    fn server_since(&self, before: &Self) -> Option<f64> {
        Some(self.server?.used.saturating_sub(before.server?.used).as_secs_f64())
    }

    /// Seconds that server and load tester were ready to run and could not.
    fn waited_since(&self, before: &Self) -> f64 {
        let waited = |sample: &Self| {
            sample.generator.waited + sample.server.map_or(Duration::ZERO, |cpu| cpu.waited)
        };
        waited(self).saturating_sub(waited(before)).as_secs_f64()
    }
}

impl Outcome {
    pub(crate) fn count_connects(&mut self, connects: u32, before: &Sample, after: &Sample) {
        self.connects_per_second = f64::from(connects) / after.seconds_since(before);
        self.us_per_connect = after.server_since(before).map(|cpu| cpu * 1e6 / f64::from(connects));
    }

    /// Counts what happened in the measured window.
    pub(crate) fn count(&mut self, load: &Load, before: &Sample, after: &Sample) {
        let seconds = after.seconds_since(before);
        let deliveries = after.deliveries - before.deliveries;
        if let Rate::PerSecond(rate) = load.rate {
            self.offered_per_second = Some(rate);
        }
        self.publishes_per_second = (after.sent - before.sent) as f64 / seconds;
        self.deliveries_per_second = deliveries as f64 / seconds;
        self.generator_cpu = (after.generator.used - before.generator.used).as_secs_f64() / seconds;
        let server = after.server_since(before);
        self.server_cpu = server.map(|cpu| cpu / seconds);
        self.us_per_delivery = server.map(|cpu| cpu * 1e6 / deliveries.max(1) as f64);
        self.waited_cpu = after.waited_since(before) / seconds;
        self.limit = self.find_limit();
    }

    /// Counts what came of the whole run, once nothing is under way any more.
    pub(crate) fn finish(&mut self, subscribers: &Subscribers, published: u64, refused: u64) {
        let tally = &subscribers.tally;
        self.connections = subscribers.len();
        self.payload_bytes = tally.payload.get();
        (self.published, self.refused) = (published, refused);
        self.expected = (published - refused) * subscribers.len() as u64;
        self.received = tally.deliveries.get();
        self.lost = self.expected.cast_signed() - self.received.cast_signed();
        self.errors.clone_from(&tally.errors.borrow());
        self.ends = tally.ends();
        self.latency_ms = tally.latency();
    }

    fn find_limit(&self) -> Option<&'static str> {
        let is_late =
            self.offered_per_second.is_some_and(|rate| self.publishes_per_second < 0.99 * rate);
        let has_room = self.server_cpu.is_some_and(|cpu| cpu < FULL);
        if self.generator_cpu > FULL {
            Some("the load tester used all of its core; give it a faster one, or less to do")
        } else if is_late && has_room {
            Some("the publisher fell behind its schedule while the server had CPU to spare")
        } else if self.waited_cpu > BUSY {
            Some("other processes used the CPUs; measure on an idle machine, each side on its own")
        } else {
            None
        }
    }

    pub(crate) fn memory_row(&self) -> String {
        let [idle, after_burst] = [self.memory.idle, self.memory.after_burst]
            .map(|then| self.memory.per_connection(then, self.connections));
        format!("{idle:.2} KiB idle, {after_burst:.2} KiB after a burst")
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
            ("deliveries", format!("{} of {}, {} lost", self.received, self.expected, self.lost)),
            ("refused", format!("{} of {} publishes", self.refused, self.published)),
            ("latency", self.latency_ms.to_string()),
            ("connects/s", format!("{:.0}", self.connects_per_second)),
            ("generator CPU", format!("{:.0} % of a core", self.generator_cpu * 100.0)),
        ];
        if let (Some(cpu), Some(delivery), Some(connect)) =
            (self.server_cpu, self.us_per_delivery, self.us_per_connect)
        {
            rows.extend([
                ("server CPU", format!("{:.0} % of a core", cpu * 100.0)),
                ("CPU a delivery", format!("{delivery:.3} µs")),
                ("CPU a connect", format!("{connect:.1} µs")),
                ("memory a connection", self.memory_row()),
            ]);
        }
        rows.extend(self.errors.iter().map(|(code, count)| ("error", format!("{code}: {count}"))));
        rows.extend(self.ends.iter().map(|(end, count)| ("ended", format!("{end}: {count}"))));
        rows.extend(self.limit.map(|limit| ("LIMIT", limit.to_owned())));
        rows
    }
}

/// Of a core: what counts as all of it.
const FULL: f64 = 0.9;

/// Of a core: more waiting than this shows in the figures.
const BUSY: f64 = 0.05;
