//! What the streams are to be like.

use std::time::Duration;

use async_nats::jetstream::stream::{Config as StreamConfig, Republish};

use super::names::{Names, Store};
use crate::broker::engine::{KEY_TTL, position_ttl};
use crate::config::Config;

/// A stream as a node with these settings needs it.
pub(super) fn wanted(store: Store, names: &Names, config: &Config) -> StreamConfig {
    let common = StreamConfig {
        name: names.stream(store),
        subjects: vec![names.subjects(store)],
        max_messages_per_subject: 1,
        // Of several copies not every one has the last record at once.
        num_replicas: 1,
        allow_direct: true,
        ..StreamConfig::default()
    };
    let republish = Republish {
        source: names.subjects(store),
        destination: names.heard(),
        headers_only: false,
    };
    match store {
        Store::History => {
            let (size, ttl) = most(config);
            StreamConfig {
                // One more for a position without a body.
                max_messages_per_subject: size as i64 + 1,
                max_age: position_ttl(ttl),
                duplicate_window: KEY_TTL,
                republish: Some(republish),
                ..common
            }
        }
        Store::Keys => StreamConfig {
            max_messages_per_subject: -1,
            max_age: KEY_TTL,
            duplicate_window: KEY_TTL,
            republish: Some(republish),
            ..common
        },
        Store::Nodes | Store::Users | Store::Clients => common,
    }
}

/// How much any namespace has remembered, and how long any.
fn most(config: &Config) -> (usize, Duration) {
    let windows = config.namespaces.values().chain([&config.channel]).map(|it| it.window());
    windows.filter(|window| window.is_open()).fold((0, Duration::ZERO), |(size, ttl), window| {
        (size.max(window.size), ttl.max(window.ttl))
    })
}
