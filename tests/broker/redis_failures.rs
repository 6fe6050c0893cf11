//! Redis that fails: doubt is told, nothing that was accepted is lost, and all heals by itself.

use serde_json::json;
use std::path::Path;

use crate::client::{data, sign};
use crate::node::{Broker, node, node_with, subscriber};
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::steps::{hear_up_to, publish_until_accepted, within_five_seconds};
use crate::support::*;

#[test]
fn connections_that_the_broker_kills_are_replaced() {
    let redis = Redis::start();
    let node = node(&redis.url());
    let mut client = subscriber(&node, 1, "news:a");
    for (kind, losses) in [("pubsub", 1.0), ("normal", 2.0)] {
        redis.cli(&["client", "kill", "type", kind]);
        wait_until("the loss is counted", || node.metric("fanfare_broker_lost_total ") == losses);
        node.until_trusted();
    }
    let last = publish_until_accepted(&node, "news:a", &json!(1));
    hear_up_to(&mut client, 0, last);
    node.until_trusted();
}

#[test]
fn a_broker_without_memory_refuses_and_what_is_there_stays() {
    let redis = Redis::start();
    let node = node(&redis.url());
    let mut client = subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    redis.cli(&["config", "set", "maxmemory", "1"]);
    assert_eq!(node.try_publish("news:a", &json!("refused")), Err(100));
    within_five_seconds(|| assert!(node.until_in_doubt().contains("OOM")));
    // What the broker need not remember goes on.
    node.hub.send_to_user(&1.into(), "1").wait().unwrap();
    assert_eq!(client.push()["message"]["data"], 1);
    redis.cli(&["config", "set", "maxmemory", "0"]);
    let last = publish_until_accepted(&node, "news:a", &json!(2));
    hear_up_to(&mut client, 1, last);
}

#[test]
fn a_broker_that_cannot_save_refuses() {
    let redis = Redis::with(&["--save", "3600", "1"]);
    let node = node(&redis.url());
    let mut client = subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
    let directory = redis.cli(&["config", "get", "dir"]);
    let blocked = Path::new(directory.lines().last().unwrap()).join("dump.rdb");
    std::fs::create_dir(&blocked).unwrap();
    redis.cli(&["bgsave"]);
    wait_until("writes are refused", || node.try_publish("news:a", &json!("refused")) == Err(100));
    std::fs::remove_dir(&blocked).unwrap();
    redis.cli(&["bgsave"]);
    let last = publish_until_accepted(&node, "news:a", &json!(2));
    hear_up_to(&mut client, 0, last);
}

#[test]
fn a_full_buffer_at_the_broker_loses_nothing() {
    let redis = Redis::with(&["--client-output-buffer-limit", "pubsub", "64kb", "0", "0"]);
    let proxy = Proxy::to(redis.port());
    let far = node_with(&redis.url_by(&proxy), |config| {
        // All that it missed comes at once.
        config.limits.outbox_bytes = 16 << 20;
    });
    let near = node(&redis.url());
    let mut client = subscriber(&far, 1, "news:a");
    proxy.hold();
    let text = "x".repeat(8 << 10);
    for i in 1..=900 {
        near.publish("news:a", &json!({"i": i, "text": text}));
    }
    let hearing = || redis.cli(&["client", "list", "type", "pubsub"]).lines().count();
    wait_until("the server has given up on one", || hearing() == 1);
    proxy.release();
    hear_up_to(&mut client, 0, 900);
    far.until_trusted();
}

#[test]
fn strict_readiness_is_a_setting_too() {
    let mut redis = Redis::start();
    let node = node_with(&redis.url(), |config| {
        config.broker.ready = fanfare::config::BrokerReady::Strict;
    });
    redis.kill();
    node.until_in_doubt();
    let (status, why) = node.readiness("");
    assert_eq!(status, 503);
    assert!(why.starts_with("the broker is in doubt for "), "{why}");
}

#[test]
fn a_client_that_has_seen_more_than_its_node_is_given_what_comes_after() {
    let redis = Redis::start();
    let node = node(&redis.url());
    let _keeps = subscriber(&node, 2, "news:a");
    node.publish("news:a", &json!(1));
    let epoch = node.result("history", &json!({"channel": "news:a"}))["epoch"].clone();
    // The node does not hear of these.
    let stream = "fanfare:v1:{c:news:a}:stream";
    for (id, body) in [("2-0", "p0:2"), ("3-0", "p0:3")] {
        redis.cli(&["hincrby", "fanfare:v1:{c:news:a}:meta", "offset", "1"]);
        redis.cli(&["xadd", stream, id, "t", &now().to_string(), "b", body]);
    }
    let mut client = node.stranger();
    let token = sign(&json!({"sub": "1", "channels": ["news:a"]}));
    let subs = json!({"news:a": {"recover": true, "offset": 2, "epoch": epoch}});
    let connected = client.call("connect", &json!({"token": token, "subs": subs}));
    let entered = &connected["subs"]["news:a"];
    assert_eq!(
        (&entered["recovered"], data(&entered["publications"])),
        (&json!(true), vec![json!(3)])
    );
}

#[test]
fn a_long_history_is_read_in_parts() {
    let redis = Redis::start();
    let here = node(&redis.url());
    let publish = |i| json!({"publish": {"channel": "news:a", "data": i}});
    for part in 0..3 {
        let commands: Vec<_> = (0..400).map(|i| publish(part * 400 + i)).collect();
        let (_, answer) = here.api("batch", &json!({"commands": commands}).to_string());
        assert!(!answer.contains("error"), "{answer}");
    }
    let there = node(&redis.url());
    let mut client = there.client(1);
    assert_eq!(client.subscribe("news:a")["offset"], 1200);
    let since = json!({"offset": 1195, "epoch": ""});
    let history = json!({"channel": "news:a", "limit": 9, "since": since});
    assert_eq!(data(&client.call("history", &history)["publications"]).len(), 5);
    let all = there.result("history", &json!({"channel": "news:a", "limit": -1}));
    assert_eq!(data(&all["publications"]).len(), 1000);
}

#[test]
fn more_than_a_node_can_hold_is_read_again() {
    let redis = Redis::start();
    let node = node_with(&redis.url(), |config| config.limits.broker_bytes = 1 << 20);
    let mut client = subscriber(&node, 1, "news:a");
    let far = "fanfare:v1:{c:news:a}";
    node.publish("news:a", &json!(1));
    let file = std::env::temp_dir().join(format!("fanfare-{}-large", std::process::id()));
    std::fs::write(&file, "x".repeat(2 << 20)).unwrap();
    let publish = format!("redis-cli -p {} -x publish '{far}' < {}", redis.port(), file.display());
    assert!(std::process::Command::new("sh").args(["-c", &publish]).status().unwrap().success());
    wait_until("the loss is counted", || node.metric("fanfare_broker_lost_total ") == 1.0);
    let _ = std::fs::remove_file(&file);
    let last = publish_until_accepted(&node, "news:a", &json!(2));
    hear_up_to(&mut client, 0, last);
    node.until_trusted();
}

/// The time in milliseconds.
fn now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}
