//! What tests do again and again.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::support::*;

/// Publishes until one is accepted; returns its offset.
pub fn publish_until_accepted(node: &TestServer, channel: &str, data: &Value) -> u64 {
    let mut offset = 0;
    wait_until("a publish is accepted", || match node.try_publish(channel, data) {
        Ok(accepted) => {
            offset = accepted;
            true
        }
        Err(code) => {
            assert_eq!(code, 100);
            false
        }
    });
    offset
}

/// Reads publications up to this one; each must follow the one before.
pub fn hear_up_to(client: &mut Client, after: u64, last: u64) {
    for offset in after + 1..=last {
        let push = client.push();
        assert_eq!(push["pub"]["offset"], offset, "{push}");
    }
}

/// What a node says must be true within five seconds.
pub fn within_five_seconds(what: impl FnOnce()) {
    let begun = Instant::now();
    what();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
