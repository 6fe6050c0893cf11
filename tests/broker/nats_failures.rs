//! NATS that fails: doubt is told, nothing that was accepted is lost, and all heals by itself.

use std::time::{Duration, Instant};

use fanfare::config::BrokerKind;
use fanfare::{Config, Hub};
use serde_json::json;

use crate::lines::Lines;
use crate::nats::Nats;
use crate::node::{Broker, node, node_with, subscriber};
use crate::ports::free_port;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::redis_tls::certificates;
use crate::steps::{hear_up_to, publish_until_accepted, within_five_seconds};
use crate::support::*;

/// Why a node does not start.
fn refusal(url: &str, set: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    config.broker.kind = BrokerKind::Nats;
    config.broker.nats.url = url.to_owned();
    set(&mut config);
    let begun = Instant::now();
    let error = Hub::start(config).err().unwrap().to_string();
    assert!(begun.elapsed() < Duration::from_secs(5), "{error}: {:?}", begun.elapsed());
    error
}

#[test]
fn a_slow_consumer_lacks_nothing() {
    let nats = Nats::with_buffers_of(512 << 10);
    let proxy = Proxy::to(nats.port());
    let far = node_with(&nats.url_by(&proxy), |config| {
        // All that it lacks comes to its client at once.
        config.limits.outbox_bytes = 64 << 20;
        config.limits.memory = 1 << 30;
    });
    let near = node(&nats.url());
    let mut client = subscriber(&far, 1, "news:a");
    proxy.hold();
    let text = "x".repeat(8 << 10);
    for i in 1..=900 {
        near.publish("news:a", &json!({"i": i, "text": text}));
    }
    within_five_seconds(|| drop(far.until_in_doubt()));
    proxy.release();
    hear_up_to(&mut client, 0, 900);
    far.until_trusted();
}

#[test]
fn a_server_that_comes_back_without_jetstream_is_told_until_it_has_it_again() {
    let mut nats = Nats::start();
    let node = node(&nats.url());
    let mut client = subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
    nats.set_jetstream(false);
    nats.restart();
    within_five_seconds(|| drop(node.until_in_doubt()));
    wait_until("the reason is told", || node.readiness("?strict").1.contains("has no JetStream"));
    assert_eq!(node.try_publish("news:a", &json!("lost")), Err(100));
    nats.set_jetstream(true);
    nats.restart();
    let last = publish_until_accepted(&node, "news:a", &json!(2));
    hear_up_to(&mut client, 0, last);
}

#[test]
fn a_stream_that_is_deleted_is_made_again_and_subscribers_are_told() {
    let nats = Nats::start();
    let node = node(&nats.url());
    let mut client = subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    nats.ask("STREAM.DELETE.fanfare-v1-history", "");
    let asked = Instant::now();
    assert_eq!(node.try_publish("news:a", &json!("lost")), Err(100));
    assert!(asked.elapsed() < Duration::from_secs(2), "it waited for an answer in vain");
    within_five_seconds(|| drop(node.until_in_doubt()));
    assert_eq!(client.push()["unsubscribe"]["code"], 2500);
    client.subscribe("news:a");
    publish_until_accepted(&node, "news:a", &json!(2));
    client.must_hear("news:a", &json!(2));
}

#[test]
fn a_server_without_room_refuses_and_what_is_there_stays() {
    let nats = Nats::with_room_for(4 << 20);
    let node = node(&nats.url());
    let mut client = subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    nats.ask("STREAM.CREATE.filler", r#"{"name":"filler","subjects":["filler"]}"#);
    let text = "x".repeat(512 << 10);
    while !nats.publish("filler", &text).contains("error") {}
    assert_eq!(node.try_publish("news:a", &json!("refused")), Err(100));
    within_five_seconds(|| assert!(node.until_in_doubt().contains("it takes nothing: ")));
    // What it need not keep goes on.
    node.hub.send_to_user(&1.into(), "1").wait().unwrap();
    assert_eq!(client.push()["message"]["data"], 1);
    nats.ask("STREAM.DELETE.filler", "");
    let last = publish_until_accepted(&node, "news:a", &json!(2));
    hear_up_to(&mut client, 1, last);
    assert_eq!(node.metric("fanfare_broker_lost_total "), 0.0);
}

#[test]
fn a_stream_that_lost_its_end_is_another_one() {
    let mut nats = Nats::start();
    let node = node(&nats.url());
    let mut client = subscriber(&node, 1, "news:a");
    for i in 1..=3 {
        node.publish("news:a", &json!(i));
        client.must_hear("news:a", &json!(i));
    }
    let epoch = node.result("history", &json!({"channel": "news:a"}))["epoch"].clone();
    let last = r#"{"filter":"fanfare.v1.h.channel.news=3Aa"}"#;
    assert!(nats.ask("STREAM.PURGE.fanfare-v1-history", last).contains(r#""success":true"#));
    let place = format!("1:{}:", epoch.as_str().unwrap());
    nats.publish("fanfare.v1.h.channel.news=3Aa", &place);
    nats.restart();
    assert_eq!(client.push()["unsubscribe"]["code"], 2500);
    let entered = client.subscribe("news:a");
    assert_ne!(entered["epoch"], epoch);
    assert_eq!(publish_until_accepted(&node, "news:a", &json!(2)), 2);
}

#[test]
fn who_listens_to_all_there_is_hinders_nobody() {
    let nats = Nats::start();
    let mut listener = Lines::connect(nats.address());
    listener.read();
    listener.send(r#"CONNECT {"verbose":false}"#);
    listener.send("SUB > 1");
    assert_eq!(listener.ask("PING"), "PONG");
    let node = node(&nats.url());
    assert_eq!(node.try_publish("open:a", &json!(1)), Ok(0));
}

#[test]
fn what_was_entered_is_entered_anew_if_its_stream_alone_is_lost() {
    let nats = Nats::start();
    let node = node(&nats.url());
    let _client = subscriber(&node, 42, "news:a");
    let stats = || node.result("presence_stats", &json!({"channel": "news:a"}));
    wait_until("the client is entered", || stats()["num_clients"] == 1);
    nats.ask("STREAM.DELETE.fanfare-v1-clients", "");
    wait_until("it is told", || node.readiness("?strict").0 == 503);
    node.until_trusted();
    wait_until("the client is entered anew", || stats()["num_clients"] == 1);
}

#[test]
fn a_node_that_does_not_come_in_says_why_at_once() {
    let nats = Nats::with(&["--user", "x", "--pass", "y"]);
    let (bare, narrow) = (Nats::without_jetstream(), Nats::with_buffers_of(64 << 10));
    let (redis, silent) = (Redis::start(), Proxy::to(nats.port()));
    silent.hold();
    let nobody = format!("nats://127.0.0.1:{}", free_port());
    for (url, why) in [
        (nobody.clone(), "Connection refused (os error 111); is the server running there?"),
        (nats.url(), "Authorization Violation; check broker.nats.user and broker.nats.password"),
        (bare.url(), "has no JetStream; start it with -js"),
        (narrow.url(), "has a max_payload of 16384; set that to 131072 or more in the config"),
        (format!("tls://{}", bare.address()), "; does the server there speak TLS?"),
        (nats.url_by(&silent), "nothing answers there in time; is it a server of NATS?"),
        (redis.url().replace("redis", "nats"), "nothing answers there in time"),
        (format!("{nobody},{}", bare.url()), "broker.nats.url: "),
    ] {
        let error = refusal(&url, |_| {});
        assert!(error.contains("broker.nats.url: ") && error.contains(why), "{url}: {error}");
    }
    let login = |password: &'static str| {
        move |config: &mut Config| {
            config.broker.nats.user = "x".to_owned();
            config.broker.nats.password = Some(fanfare::config::Secret::new(password));
        }
    };
    let error = refusal(&nats.url(), login("z"));
    assert!(error.contains("Authorization Violation; check broker.nats.user"), "{error}");
    drop(node_with(&format!("{nobody},{}", nats.url()), login("y")));
}

#[test]
fn a_user_who_lacks_a_right_is_told() {
    let [ours, inbox, api] = ["fanfare.v1.>", "_INBOX.>", "$JS.API.>"];
    for (publish, subscribe, lacked) in [
        (&[ours, api][..], &[ours][..], "Subscription to \"_INBOX."),
        (&[ours], &[ours, inbox], "Publish to \"$JS.API.INFO\""),
        (&[api], &[ours, inbox], "Publish to \"fanfare.v1.n.clock\""),
    ] {
        let error = refusal(&Nats::with_rights(publish, subscribe).url(), |_| {});
        let told = format!("Permissions Violation for {lacked}");
        assert!(error.contains(&told) && error.contains("; let the user publish and"), "{error}");
    }
    let nats = Nats::with_rights(&[ours, api], &[ours, inbox]);
    let node = node(&nats.url());
    subscriber(&node, 1, "news:a");
    node.publish("news:a", &json!(1));
}

#[test]
fn a_stream_that_is_not_as_nodes_make_it_is_told() {
    let nats = Nats::start();
    let foreign = r#"{"name":"fanfare-v1-history","subjects":["fanfare.v1.h.>"]}"#;
    nats.ask("STREAM.CREATE.fanfare-v1-history", foreign);
    let error = refusal(&nats.url(), |_| {});
    assert!(error.contains("does not keep the stream fanfare-v1-history: "), "{error}");
}

#[test]
fn a_server_that_speaks_tls_is_trusted_by_its_authority() {
    let files = certificates();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let nats = Nats::with(&["--tls", "--tlscert", &certificate, "--tlskey", &key]);
    let trusting = node_with(&nats.url(), |config| config.broker.nats.ca_file.clone_from(&ca));
    let mut client = subscriber(&trusting, 1, "news:a");
    trusting.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    for url in [nats.url(), nats.url().replace("nats", "tls")] {
        let error = refusal(&url, |_| {});
        assert!(error.contains("; set broker.nats.ca_file"), "{error}");
    }
    let error = refusal(&nats.url(), |config| config.broker.nats.ca_file = key.clone());
    assert!(error.contains("broker.nats.ca_file: "), "{error}");
}

#[test]
fn nodes_that_start_at_once_find_all_that_they_need() {
    let nats = Nats::start();
    let url = nats.url();
    let nodes = std::thread::scope(|scope| {
        let starting = [(); 4].map(|()| scope.spawn(|| node(&url)));
        starting.map(|node| node.join().unwrap())
    });
    let mut client = subscriber(&nodes[0], 1, "news:a");
    for (i, node) in nodes.iter().enumerate() {
        node.publish("news:a", &json!(i));
        client.must_hear("news:a", &json!(i));
    }
}
