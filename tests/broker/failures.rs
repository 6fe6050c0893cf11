//! A broker of either kind that fails: doubt is told, nothing that was accepted is lost, and all heals by
//! itself.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fanfare::config::{JoinLeave, Switch};
use serde_json::{Value, json};

use crate::client::namespace;
use crate::node::{Broker, node, node_with, on_both, subscriber};
use crate::proxy::Proxy;
use crate::records::Records;
use crate::steps::{hear_up_to, publish_until_accepted, within_five_seconds};
use crate::support::*;

on_both! {
    a_broker_that_is_killed_is_told_and_all_goes_on_once_it_is_back,
    many_publishes_of_one_call_wait_for_a_broker_that_is_away_once,
    what_was_published_while_a_node_was_cut_off_is_brought_to_its_subscribers,
    a_half_open_connection_is_found_and_replaced,
    a_paused_broker_is_told_and_nothing_accepted_is_lost,
    a_broker_that_comes_back_empty_is_another_stream_and_subscribers_are_told,
    who_is_here_does_not_leave_for_a_broker_that_was_away_longer_than_leases_last,
    what_was_published_and_never_heard_is_found_in_the_stream,
    offsets_that_are_given_twice_make_another_stream,
}

fn a_broker_that_is_killed_is_told_and_all_goes_on_once_it_is_back(broker: &mut impl Broker) {
    let nodes = [node(&broker.url()), node(&broker.url())];
    let mut clients = [subscriber(&nodes[0], 1, "news:a"), subscriber(&nodes[1], 2, "news:a")];
    nodes[0].publish("news:a", &json!(1));
    broker.kill();
    within_five_seconds(|| nodes.iter().for_each(|node| drop(node.until_in_doubt())));
    assert_eq!(nodes[0].readiness("").0, 200);
    assert_eq!(nodes[0].metric("fanfare_broker_up "), 0.0);
    assert_eq!(nodes[0].try_publish("news:a", &json!("lost")), Err(100));
    broker.restart();
    let last = publish_until_accepted(&nodes[1], "news:a", &json!(2));
    for client in &mut clients {
        hear_up_to(client, 0, last);
    }
    nodes.iter().for_each(TestServer::until_trusted);
    assert_eq!(nodes[0].metric("fanfare_broker_up "), 1.0);
    assert!(nodes[0].metric(r#"fanfare_broker_gaps_total{outcome="repaired"}"#) >= 1.0);
}

fn many_publishes_of_one_call_wait_for_a_broker_that_is_away_once(broker: &mut impl Broker) {
    let node = node_with(&broker.url(), |config| {
        config.broker.timeout = Duration::from_secs(1);
        config.limits.ring_messages = 100;
    });
    broker.kill();
    node.until_in_doubt();
    let publish = json!({"publish": {"channel": "news:a", "data": 1}});
    let channels: Vec<_> = (0..1000).map(|i| format!("news:{i}")).collect();
    let (is_done, mut answers) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        // Others wait too, each for a time of its own.
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                drop(node.hub.publish("news:b", "1"));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for (method, body) in [
            ("batch", json!({"commands": vec![publish; 1000]})),
            ("broadcast", json!({"channels": channels, "data": 1})),
        ] {
            let begun = Instant::now();
            let (_, answer) = node.api(method, &body.to_string());
            answers.push((method, answer.matches(r#""code":100"#).count(), begun.elapsed()));
        }
        is_done.store(true, Relaxed);
    });
    for (method, refused, time) in answers {
        assert_eq!(refused, 1000, "{method}");
        assert!(time < Duration::from_secs(4), "{method}: {time:?}");
    }
}

fn what_was_published_while_a_node_was_cut_off_is_brought_to_its_subscribers(
    broker: &mut impl Broker,
) {
    let mut proxy = Proxy::to(broker.port());
    let far = node(&broker.url_by(&proxy));
    let near = node(&broker.url());
    let mut client = subscriber(&far, 1, "news:a");
    near.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    proxy.refuse();
    proxy.cut();
    far.until_in_doubt();
    for i in 2..=50 {
        near.publish("news:a", &json!(i));
    }
    proxy.accept();
    far.until_trusted();
    near.publish("news:a", &json!(51));
    hear_up_to(&mut client, 1, 51);
}

fn a_half_open_connection_is_found_and_replaced(broker: &mut impl Broker) {
    let proxy = Proxy::to(broker.port());
    let far = node(&broker.url_by(&proxy));
    let near = node(&broker.url());
    let mut client = subscriber(&far, 1, "news:a");
    proxy.hold();
    for i in 1..=5 {
        near.publish("news:a", &json!(i));
    }
    within_five_seconds(|| drop(far.until_in_doubt()));
    proxy.cut();
    proxy.release();
    hear_up_to(&mut client, 0, 5);
    far.until_trusted();
}

fn a_paused_broker_is_told_and_nothing_accepted_is_lost(broker: &mut impl Broker) {
    let nodes = [node(&broker.url()), node(&broker.url())];
    let mut client = subscriber(&nodes[1], 1, "news:a");
    nodes[0].publish("news:a", &json!(1));
    broker.pause();
    within_five_seconds(|| nodes.iter().for_each(|node| drop(node.until_in_doubt())));
    let paused = Instant::now();
    assert_eq!(nodes[0].try_publish("news:a", &json!("uncertain")), Err(100));
    wait_until("the doubt outlasts the grace", || nodes[0].readiness("").0 == 503);
    assert!(paused.elapsed() < Duration::from_secs(12));
    // Existing sockets and what needs no broker go on.
    let mut peer = nodes[0].connect(7);
    peer.send_text(r#"{"type":"ping"}"#);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    // Longer than any lease, and than servers are mostly away.
    std::thread::sleep(Duration::from_secs(30).saturating_sub(paused.elapsed()));
    broker.resume();
    let last = publish_until_accepted(&nodes[0], "news:a", &json!(2));
    hear_up_to(&mut client, 0, last);
    nodes.iter().for_each(TestServer::until_trusted);
}

fn a_broker_that_comes_back_empty_is_another_stream_and_subscribers_are_told(
    broker: &mut impl Broker,
) {
    let node = node(&broker.url());
    let mut client = node.client(1);
    let epoch = client.subscribe("news:a")["epoch"].clone();
    node.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    broker.kill();
    broker.restart_empty();
    assert_eq!(client.push()["unsubscribe"]["code"], 2500);
    let entered = client.recover("news:a", 1, &epoch);
    assert_eq!(
        (&entered["recovered"], entered["epoch"] == epoch),
        (&Value::Null, false),
        "{entered}"
    );
    publish_until_accepted(&node, "news:a", &json!(2));
    client.must_hear("news:a", &json!(2));
}

fn who_is_here_does_not_leave_for_a_broker_that_was_away_longer_than_leases_last(
    broker: &mut impl Broker,
) {
    let announce = |config: &mut fanfare::Config| {
        config.chat.announce = fanfare::config::Announce::User;
        namespace(config, "room", |room| {
            room.presence = Switch::On;
            room.join_leave = JoinLeave::Client;
        });
    };
    let (here, there) = (node_with(&broker.url(), announce), node_with(&broker.url(), announce));
    let mut watcher = here.open(1);
    watcher.read_text();
    let _other = there.open(42);
    assert!(watcher.read_text().contains(r#""user_joined","user_id":42"#));
    let mut listener = here.client(1);
    listener.call("subscribe", &json!({"channel": "room:a", "join_leave": true}));
    assert_eq!(listener.push()["join"]["info"]["user"], "1");
    let _guest = subscriber(&there, 42, "room:a");
    assert_eq!(listener.push()["join"]["info"]["user"], "42");
    broker.kill();
    // Leases last 4 s here.
    std::thread::sleep(Duration::from_secs(6));
    broker.restart();
    here.until_trusted();
    there.until_trusted();
    // Whoever has not come back 4 s after the broker did is taken for gone.
    std::thread::sleep(Duration::from_secs(6));
    here.hub.broadcast("still here").wait().unwrap();
    assert_eq!(watcher.read_text(), "still here");
    assert_eq!(listener.push()["message"]["data"], "still here");
    here.publish("room:a", &json!("still here"));
    listener.must_hear("room:a", &json!("still here"));
}

fn what_was_published_and_never_heard_is_found_in_the_stream(broker: &mut impl Records) {
    let node = node(&broker.url());
    let mut client = node.client(1);
    let epoch = client.subscribe("news:a")["epoch"].as_str().unwrap().to_owned();
    node.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    broker.append_unheard(&epoch);
    // Two looks, of which the second finds that it still lacks, are further apart than a peer waits.
    std::thread::sleep(Duration::from_secs(25));
    client.must_hear("news:a", &json!(2));
}

fn offsets_that_are_given_twice_make_another_stream(broker: &mut impl Records) {
    let proxy = Proxy::to(broker.port());
    let node = node(&broker.url_by(&proxy));
    let mut client = node.client(1);
    let epoch = client.subscribe("news:a")["epoch"].clone();
    node.publish("news:a", &json!("lost"));
    client.must_hear("news:a", &json!("lost"));
    // As a server has it that lacked the last publication, and has been given another one.
    proxy.hold();
    broker.replace_all(epoch.as_str().unwrap());
    proxy.cut();
    proxy.release();
    assert_eq!(client.push()["unsubscribe"]["code"], 2500);
    let entered = client.recover("news:a", 1, &epoch);
    assert!(entered["recovered"].is_null() && entered["epoch"] != epoch, "{entered}");
}
