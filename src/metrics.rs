//! Counters, and their Prometheus text.
//!
//! What a shard counts it alone writes, so counting costs a load and a store; readers add the
//! shards up at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::error::PublishError;
use crate::hook::Application;
use crate::hub::Inner;
use crate::lock::lock;
use crate::ring::Load;

/// Everything as Prometheus text, format 0.0.4.
pub(crate) fn exposition(hub: &Arc<Inner>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(hub.clone())));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// A few totals since the start, for `info`.
pub(crate) fn totals(hub: &Inner) -> BTreeMap<&'static str, f64> {
    let shards = || hub.shards.iter().map(|shard| &shard.stats.hot);
    let HubStats { broadcasts, posts, unicasts, .. } = &hub.stats;
    let totals = [
        ("publishes", broadcasts.get() + posts.get() + unicasts.get()),
        ("deliveries", shards().map(|hot| hot.deliveries.get()).sum()),
        ("writes", shards().map(|hot| hot.writes.get()).sum()),
        ("written_bytes", shards().map(|hot| hot.written.get()).sum()),
    ];
    totals.into_iter().map(|(name, total)| (name, total as f64)).collect()
}

/// What publishers and handshakes count, from any thread.
#[derive(Debug, Default)]
pub(crate) struct HubStats {
    broadcasts: Count,
    posts: Count,
    unicasts: Count,
    disconnects: Count,
    orders: Count,
    closed: Count,
    overloaded: Count,
    not_json: Count,
    too_large: Count,
    too_many_channels: Count,
    unavailable: Count,
    uncertain: Count,
    unknown_channel: Count,
    presence_dropped: Count,
    failed_handshakes: Tally<&'static str>,
}

impl HubStats {
    pub(crate) fn admit(&self, load: &Load) {
        match load {
            Load::Broadcast(..) => self.broadcasts.increment(),
            Load::Close(..) => self.disconnects.increment(),
            Load::Order(..) => self.orders.increment(),
            Load::Post(post) => self.posts.increase(post.publications().len() as u64),
            Load::Unicast(..) => self.unicasts.increment(),
            Load::Probe(_) => {}
        }
    }

    /// Counts a refusal and hands it on.
    pub(crate) fn refuse(&self, error: PublishError) -> PublishError {
        match error {
            PublishError::Closed => self.closed.increment(),
            PublishError::NotJson => self.not_json.increment(),
            PublishError::Overloaded => self.overloaded.increment(),
            PublishError::TooLarge { .. } => self.too_large.increment(),
            PublishError::TooManyChannels => self.too_many_channels.increment(),
            PublishError::Unavailable => self.unavailable.increment(),
            PublishError::Uncertain => self.uncertain.increment(),
            PublishError::UnknownChannel => self.unknown_channel.increment(),
        }
        error
    }

    /// Counts a join or leave that found no room in the ring, and is not told.
    pub(crate) fn presence_dropped(&self) {
        self.presence_dropped.increment();
    }

    pub(crate) fn fail_handshake(&self, reason: &'static str) {
        self.failed_handshakes.increment(reason);
    }
}

/// What one shard counts, from its own thread.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    hot: CachePadded<Hot>,
    lag: Lag,
    received: Count,
    dropped: Count,
    stale: Count,
    gapped: Count,
    outbox_bytes: Count,
    closes: Tally<u16>,
    api_calls: Tally<&'static str>,
    api_errors: Tally<u32>,
}

#[derive(Debug, Default)]
struct Hot {
    deliveries: Count,
    writes: Count,
    written: Count,
}

impl ShardStats {
    pub(crate) fn delivered(&self, deliveries: u64, stale: u64) {
        self.hot.deliveries.add(deliveries);
        self.stale.add(stale);
    }

    /// Counts gaps: turns in which a channel lacked something, or subscriptions found to.
    pub(crate) fn gapped(&self, gaps: u64) {
        self.gapped.add(gaps);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.hot.writes.add(1);
        self.hot.written.add(bytes as u64);
    }

    pub(crate) fn received(&self) {
        self.received.add(1);
    }

    pub(crate) fn closed(&self, code: u16) {
        self.closes.increment(code);
    }

    /// Counts so many commands of the API, and the codes of those that had errors.
    pub(crate) fn called(
        &self,
        method: &'static str,
        count: usize,
        errors: impl IntoIterator<Item = u32>,
    ) {
        self.api_calls.add(method, count as u64);
        errors.into_iter().for_each(|code| self.api_errors.increment(code));
    }

    pub(crate) fn dropped(&self, frames: usize) {
        self.dropped.add(frames as u64);
    }

    pub(crate) fn lagged(&self, lag: Duration) {
        self.lag.observe(lag);
    }

    pub(crate) fn holds(&self, outbox_bytes: usize) {
        self.outbox_bytes.0.store(outbox_bytes as u64, Ordering::Relaxed);
    }
}

/// A counter.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// Adds from the only thread that writes.
    fn add(&self, count: u64) {
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    /// Adds from any thread.
    fn increment(&self) {
        self.increase(1);
    }

    /// The same by so many.
    fn increase(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by label, from any thread.
#[derive(Debug)]
pub(crate) struct Tally<L>(Mutex<BTreeMap<L, u64>>);

impl<L: Clone + Ord> Tally<L> {
    pub(crate) fn increment(&self, label: L) {
        self.add(label, 1);
    }

    fn add(&self, label: L, count: u64) {
        *self.lock().entry(label).or_default() += count;
    }

    fn counts(&self) -> BTreeMap<L, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<L, u64>> {
        // A count is whole whatever panicked beside it.
        lock(&self.0)
    }
}

impl<L> Default for Tally<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// How long the oldest publish of each pump turn waited in the ring.
#[derive(Debug, Default)]
struct Lag {
    buckets: [Count; LAG_BOUNDS.len() + 1],
    nanoseconds: Count,
}

impl Lag {
    fn observe(&self, lag: Duration) {
        let bucket = LAG_BOUNDS.partition_point(|bound| *bound < lag.as_secs_f64());
        self.buckets[bucket].add(1);
        self.nanoseconds.add(lag.as_nanos() as u64);
    }
}

#[derive(Debug)]
struct Scrape(Arc<Inner>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let hub = &self.0;
        let mut out = Exposition(encoder);
        out.gauge("connections", "Open connections", hub.connections.load(Ordering::Relaxed))?;
        out.gauge("sockets", "Open sockets", hub.sockets.load(Ordering::Relaxed))?;
        out.gauge("users", "Users with a connection", hub.registry.active_users())?;
        out.gauge("users_present", "Users present", hub.registry.present_users())?;
        out.gauge("channels", "Channels", hub.channels.count())?;
        out.gauge("subscriptions", "Subscriptions to channels", hub.channels.subscriptions())?;
        let help = "Bytes of what channels remember";
        out.gauge("history_bytes", help, hub.channels.remembered())?;
        out.gauge("ring_entries", "Publishes in the ring", hub.ring.taken().0 as usize)?;
        out.gauge("ring_bytes", "Bytes reserved in the ring", hub.ring.taken().1 as usize)?;
        self.publishes(&mut out)?;
        self.broker(&mut out)?;
        self.hooks(&mut out)?;
        self.shards(&mut out)
    }
}

impl Scrape {
    fn publishes(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let stats = &self.0.stats;
        let publishes = [
            ("broadcast", stats.broadcasts.get()),
            ("channel", stats.posts.get()),
            ("unicast", stats.unicasts.get()),
            ("disconnect", stats.disconnects.get()),
            ("order", stats.orders.get()),
        ];
        out.family("publishes", "Publishes admitted, by kind", "kind", publishes)?;
        let refusals = [
            ("closed", stats.closed.get()),
            ("not_json", stats.not_json.get()),
            ("overloaded", stats.overloaded.get()),
            ("too_large", stats.too_large.get()),
            ("too_many_channels", stats.too_many_channels.get()),
            ("unavailable", stats.unavailable.get()),
            ("uncertain", stats.uncertain.get()),
            ("unknown_channel", stats.unknown_channel.get()),
        ];
        out.family("refusals", "Publishes refused, by reason", "reason", refusals)?;
        let help = "Joins and leaves of channels that found no room in the ring";
        out.counter("presence_dropped", help, stats.presence_dropped.get())?;
        let help = "Handshakes that failed, by reason";
        out.family("handshake_failures", help, "reason", stats.failed_handshakes.counts())
    }

    fn broker(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let Some(broker) = &self.0.broker else { return Ok(()) };
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let stats = &broker.stats;
        let help =
            "Whether the broker is trusted: this node hears itself, and follows what it needs";
        out.gauge("broker_up", help, usize::from(broker.health.is_trusted()))?;
        let help = "How long this node's last pulse took through the broker, or has been missing";
        out.seconds("broker_lag_seconds", help, broker.health.lag())?;
        let help = "Topics that this node is subscribed to at the broker";
        out.gauge("broker_topics", help, get(&stats.topics) as usize)?;
        let help = "Publishes that wait to be sent to the broker";
        out.gauge("broker_waiting", help, broker.room().taken().0 as usize)?;
        let help = "Publishes that the broker has taken";
        out.counter("broker_published", help, get(&stats.published))?;
        let help = "Messages that came from the broker";
        out.counter("broker_received", help, get(&stats.received))?;
        let help = "Messages from the broker that could not be read";
        out.counter("broker_malformed", help, get(&stats.malformed))?;
        out.counter("broker_lost", "Connections to the broker that ended", get(&stats.lost))?;
        let help = "Channels and topics that were in doubt, by what came of it";
        let gaps = [
            ("repaired", get(&stats.repaired)),
            ("interrupted", get(&stats.interrupted)),
            ("possible", get(&stats.possible_gaps)),
        ];
        out.family("broker_gaps", help, "outcome", gaps)
    }

    fn hooks(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let Some(Application { notices, stats, .. }) = &self.0.application else { return Ok(()) };
        out.family(
            "hook_calls",
            "Questions to the application, by call",
            "call",
            stats.calls.counts(),
        )?;
        let help = "Questions without an answer and notices that were not taken, by reason";
        out.family("hook_failures", help, "reason", stats.failures.counts())?;
        out.gauge("hook_notices", "Notices that wait for the application", notices.waiting())?;
        let help = "Notices dropped as too many waited";
        out.counter("hook_notices_dropped", help, notices.dropped())
    }

    fn shards(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let all = || self.0.shards.iter().map(|shard| &shard.stats);
        let sum = |count: fn(&ShardStats) -> &Count| all().map(|stats| count(stats).get()).sum();
        let help = "Frames put into outboxes";
        out.counter("deliveries", help, sum(|stats| &stats.hot.deliveries))?;
        let help = "Frames dropped from outboxes at eviction or loss";
        out.counter("dropped", help, sum(|stats| &stats.dropped))?;
        let help = "Unicasts and disconnects whose connection was gone";
        out.counter("stale", help, sum(|stats| &stats.stale))?;
        let help = "Pump turns in which a channel lacked something that was published, and subscriptions found to lack it";
        out.counter("gaps", help, sum(|stats| &stats.gapped))?;
        out.counter("received", "Messages received", sum(|stats| &stats.received))?;
        out.counter("writes", "Writes to sockets", sum(|stats| &stats.hot.writes))?;
        let help = "Bytes written to sockets";
        out.counter("written_bytes", help, sum(|stats| &stats.hot.written))?;
        let held: u64 = sum(|stats| &stats.outbox_bytes);
        let help = "Bytes held by bursts in outboxes and by partial messages";
        out.gauge("outbox_bytes", help, held as usize)?;
        let mut closes = BTreeMap::new();
        for (code, count) in all().flat_map(|stats| stats.closes.counts()) {
            *closes.entry(code.to_string()).or_default() += count;
        }
        out.family("closes", "Connections closed, by code", "code", closes)?;
        self.api(out)?;
        self.lag(out)
    }

    fn api(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let all = || self.0.shards.iter().map(|shard| &shard.stats);
        let (mut calls, mut errors) = (BTreeMap::new(), BTreeMap::new());
        for (method, count) in all().flat_map(|stats| stats.api_calls.counts()) {
            *calls.entry(method).or_default() += count;
        }
        for (code, count) in all().flat_map(|stats| stats.api_errors.counts()) {
            *errors.entry(code.to_string()).or_default() += count;
        }
        out.family("api_calls", "Commands of the API, by method", "method", calls)?;
        out.family("api_errors", "Commands of the API that failed, by code", "code", errors)
    }

    fn lag(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let lags = || self.0.shards.iter().map(|shard| &shard.stats.lag);
        let bounds = LAG_BOUNDS.into_iter().chain([f64::INFINITY]).enumerate();
        let bucket = |index: usize| lags().map(|lag| lag.buckets[index].get()).sum();
        let buckets: Vec<(f64, u64)> = bounds.map(|(i, bound)| (bound, bucket(i))).collect();
        let seconds = lags().map(|lag| lag.nanoseconds.get()).sum::<u64>() as f64 / 1e9;
        let count = buckets.iter().map(|(_, count)| count).sum();
        let help = "Time from admission to outboxes of each pump turn's oldest publish";
        let name = format!("{PREFIX}lag_seconds");
        let mut metric = out.0.encode_descriptor(&name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}

/// Writes families under the common prefix.
struct Exposition<'a>(DescriptorEncoder<'a>);

impl Exposition<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        let name = format!("{PREFIX}{name}");
        self.0.encode_descriptor(&name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let name = format!("{PREFIX}{name}");
        let mut metric = self.0.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value.as_secs_f64())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let name = format!("{PREFIX}{name}");
        let mut metric = self.0.encode_descriptor(&name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn family<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let name = format!("{PREFIX}{name}");
        let mut metric = self.0.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            let labels = [(label, value.as_ref())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }
}

const PREFIX: &str = "fanfare_";

/// Upper bounds of the lag's buckets, in seconds: from an idle shard's to one in distress.
const LAG_BOUNDS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 5.0];
