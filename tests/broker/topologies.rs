//! Redis with Sentinels, as a cluster, and encrypted.

use std::net::SocketAddr;

use fanfare::Config;
use fanfare::config::RedisMode;
use serde_json::json;

use crate::node::{node_with, subscriber};
use crate::redis::cli;
use crate::redis_cluster::Cluster;
use crate::redis_sentinels::Sentinels;
use crate::redis_tls::RedisTls;
use crate::support::*;

fn urls(addresses: &[SocketAddr]) -> String {
    let urls: Vec<_> = addresses.iter().map(|address| format!("redis://{address}")).collect();
    urls.join(",")
}

fn mode(mode: RedisMode) -> impl Fn(&mut Config) {
    move |config| config.broker.redis.mode = mode
}

#[test]
fn when_sentinels_name_another_primary_nodes_follow_and_nothing_replicated_is_lost() {
    let mut sentinels = Sentinels::start();
    let url = urls(&sentinels.addresses());
    let nodes =
        [node_with(&url, mode(RedisMode::Sentinel)), node_with(&url, mode(RedisMode::Sentinel))];
    let mut client = subscriber(&nodes[1], 1, "news:a");
    let epoch = nodes[0].result("history", &json!({"channel": "news:a"}))["epoch"].clone();
    for i in 1..=5 {
        nodes[0].publish("news:a", &json!(i));
        client.must_hear("news:a", &json!(i));
    }
    assert_eq!(cli(sentinels.primary_port(), &["wait", "1", "5000"]), "1");
    sentinels.kill_primary();
    nodes[0].until_in_doubt();
    nodes.iter().for_each(TestServer::until_trusted);
    wait_until("a publish is accepted", || nodes[0].try_publish("news:a", &json!(6)).is_ok());
    client.must_hear("news:a", &json!(6));
    let history = nodes[0].result("history", &json!({"channel": "news:a", "limit": 9}));
    assert_eq!((&history["epoch"], &history["offset"]), (&epoch, &json!(6)));
}

#[test]
fn in_a_cluster_every_channel_is_on_the_server_of_its_slot() {
    let cluster = Cluster::start();
    let url = urls(&cluster.addresses());
    let nodes =
        [node_with(&url, mode(RedisMode::Cluster)), node_with(&url, mode(RedisMode::Cluster))];
    let channels: Vec<_> = (0..20).map(|i| format!("news:{i}")).collect();
    let mut client = nodes[1].client(42);
    for channel in &channels {
        client.subscribe(channel);
        nodes[0].publish(channel, &json!(channel));
        client.must_hear(channel, &json!(channel));
    }
    let has_keys = |address: &SocketAddr| cli(address.port(), &["dbsize"]) != "0";
    assert!(cluster.addresses().iter().all(has_keys));
    nodes[0].hub.send_to_user(&42.into(), r#""to 42""#).wait().unwrap();
    assert_eq!(client.push()["message"]["data"], "to 42");
    let batch: Vec<_> =
        channels.iter().map(|it| json!({"publish": {"channel": it, "data": "again"}})).collect();
    let (_, answer) = nodes[0].api("batch", &json!({"commands": batch}).to_string());
    assert!(!answer.contains("error"), "{answer}");
    let mut heard: Vec<_> =
        channels.iter().map(|_| client.push()["channel"].as_str().unwrap().to_owned()).collect();
    let mut expected = channels.clone();
    heard.sort();
    expected.sort();
    assert_eq!(heard, expected);
    let topics = || nodes[1].metric("fanfare_broker_topics ");
    let before = topics();
    client.call("unsubscribe", &json!({"channel": "news:0"}));
    wait_until("its topic is left", || topics() < before);
    assert_eq!(nodes[1].metric("fanfare_broker_lost_total "), 0.0);
}

#[test]
fn an_encrypted_server_is_trusted_by_the_certificates_that_are_set() {
    let redis = RedisTls::start();
    let node = node_with(&redis.url(), |config| {
        config.broker.redis.ca_file = redis.ca().to_str().unwrap().to_owned();
    });
    let mut client = subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
}
