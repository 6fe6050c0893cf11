//! What this node is and has.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::hub::Inner;
use crate::metrics;
use crate::protocol::json::encode;

/// In Centrifugo's shape, and what only fanfare has.
pub(super) fn info(hub: &Inner) -> String {
    #[derive(Serialize)]
    struct Info<'a> {
        nodes: [Node<'a>; 1],
    }
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
        uid: &hub.uid,
        name: &hub.name,
        version: env!("CARGO_PKG_VERSION"),
        num_clients: hub.connections.load(Ordering::Relaxed),
        num_users: hub.registry.active_users(),
        num_subs: hub.channels.subscriptions(),
        num_channels: hub.channels.count(),
        uptime: hub.started.elapsed().as_secs(),
        metrics: Metrics { interval: 0.0, items: metrics::totals(hub) },
        shards: hub.shards.len(),
        users_present: hub.registry.present_users(),
    };
    encode(&Info { nodes: [node] })
}
