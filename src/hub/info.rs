//! What a node says of itself.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::hub::Inner;
use crate::metrics;
use crate::protocol::json::encode;

impl Inner {
    /// This node, in Centrifugo's shape and with what only fanfare has.
    pub(crate) fn info(&self) -> String {
        #[derive(Serialize)]
        struct Node<'a> {
            uid: &'a str,
            name: &'a str,
            version: &'a str,
            num_clients: usize,
            num_users: usize,
            num_subs: usize,
            num_channels: usize,
            uptime: u64,
            metrics: Metrics,
            shards: usize,
            users_present: usize,
        }
        #[derive(Serialize)]
        struct Metrics {
            /// Seconds that the items cover; 0, as these are totals since the start.
            interval: f64,
            items: BTreeMap<&'static str, f64>,
        }
        let node = Node {
            uid: &self.uid,
            name: &self.name,
            version: env!("CARGO_PKG_VERSION"),
            num_clients: self.connections.load(Ordering::Relaxed),
            num_users: self.registry.active_users(),
            num_subs: self.channels.subscriptions(),
            num_channels: self.channels.count(),
            uptime: self.started.elapsed().as_secs(),
            metrics: Metrics { interval: 0.0, items: metrics::totals(self) },
            shards: self.shards.len(),
            users_present: self.registry.present_users(),
        };
        encode(&node)
    }
}
