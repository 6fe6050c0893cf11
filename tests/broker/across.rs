//! What is done on one node and seen on another.

use std::time::Duration;

use fanfare::UserId;
use serde_json::{Value, json};

use crate::client::{Client, data};
use crate::node::{Broker, node, node_with, on_both, subscriber};
use crate::steps::hear_up_to;
use crate::support::*;

on_both! {
    what_is_published_on_one_node_comes_on_all_in_one_order,
    a_client_that_comes_back_on_another_node_is_given_what_it_missed,
    a_channel_without_history_comes_on_all_nodes_too,
    what_goes_together_comes_in_its_order_and_where_it_belongs,
    each_publish_of_a_batch_has_an_answer_of_its_own,
    nodes_that_publish_to_one_channel_at_once_all_come_through,
    a_user_has_what_is_sent_to_it_on_every_node,
    the_chat_is_one_on_all_nodes,
    orders_reach_the_connections_of_every_node,
    channels_are_those_of_all_nodes,
    an_idempotency_key_counts_on_all_nodes,
    an_idempotency_key_counts_without_history_too,
    what_is_for_a_user_and_for_all_comes_in_the_order_in_which_it_was_sent,
    history_is_forgotten_on_all_nodes,
    prefixes_keep_clusters_apart,
    what_a_node_was_given_before_it_ended_comes_on_the_others,
}

fn what_is_published_on_one_node_comes_on_all_in_one_order(broker: &impl Broker) {
    let nodes = [node(&broker.url()), node(&broker.url()), node(&broker.url())];
    let mut clients: Vec<_> = nodes.iter().map(|node| subscriber(node, 1, "news:a")).collect();
    for i in 0..30 {
        nodes[i % 3].publish("news:a", &json!(i));
    }
    for client in &mut clients {
        for i in 0..30 {
            let push = client.push();
            assert_eq!((&push["pub"]["data"], &push["pub"]["offset"]), (&json!(i), &json!(i + 1)));
        }
    }
    assert_eq!(nodes[0].result("history", &json!({"channel": "news:a"}))["offset"], 30);
}

fn a_client_that_comes_back_on_another_node_is_given_what_it_missed(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut client = here.client(1);
    let epoch = client.subscribe("news:a")["epoch"].clone();
    here.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    drop(client);
    for i in 2..=4 {
        here.publish("news:a", &json!(i));
    }
    let mut client = there.client(1);
    let entered = client.recover("news:a", 1, &epoch);
    assert_eq!(entered["recovered"], true, "{entered}");
    assert_eq!(data(&entered["publications"]), [json!(2), json!(3), json!(4)]);
    here.publish("news:a", &json!(5));
    client.must_hear("news:a", &json!(5));
}

fn a_channel_without_history_comes_on_all_nodes_too(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut clients = [subscriber(&here, 1, "open:a"), subscriber(&there, 2, "open:a")];
    clients[0].call("publish", &json!({"channel": "open:a", "data": "hi"}));
    for client in &mut clients {
        let push = client.push();
        assert_eq!(
            (&push["pub"]["data"], &push["pub"]["info"]["user"]),
            (&json!("hi"), &json!("1"))
        );
    }
}

fn what_goes_together_comes_in_its_order_and_where_it_belongs(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    // Two subscribers, as between channels no order is promised.
    let mut clients = [subscriber(&there, 1, "open:a"), subscriber(&there, 2, "open:b")];
    // Short runs, long ones, and more than goes together.
    let is_of_a = |i: usize| i < 100 && i.is_multiple_of(3);
    let data = |i: usize| json!([i, "x".repeat(i * 7)]);
    for i in 0..300 {
        let channel = if is_of_a(i) { "open:a" } else { "open:b" };
        drop(here.hub.publish(channel, data(i).to_string()));
    }
    for i in 0..300 {
        let (client, channel) = if is_of_a(i) { (0, "open:a") } else { (1, "open:b") };
        clients[client].must_hear(channel, &data(i));
    }
}

fn each_publish_of_a_batch_has_an_answer_of_its_own(broker: &impl Broker) {
    // So small that a batch does not go as one.
    let small = |config: &mut fanfare::Config| config.limits.ring_messages = 16;
    let (here, there) = (node_with(&broker.url(), small), node(&broker.url()));
    let mut clients = [subscriber(&there, 1, "open:a"), subscriber(&there, 2, "news:a")];
    let channel = |i: usize| ["open:a", "open:a", "news:a", "none:a", "open:a"][i % 5];
    let publish = |i| json!({"publish": {"channel": channel(i), "data": i}});
    let commands: Vec<_> = (0..100).map(publish).collect();
    let (_, answer) = here.api("batch", &json!({"commands": commands}).to_string());
    let replies: Value = serde_json::from_str(&answer).unwrap();
    for i in 0..100 {
        let reply = &replies["replies"][i];
        match channel(i) {
            "news:a" => assert_eq!(reply["publish"]["offset"], i / 5 + 1, "{reply}"),
            "open:a" => assert_eq!(reply["publish"]["connections"], 0, "{reply}"),
            _ => assert_eq!(reply["error"]["code"], 102, "{reply}"),
        }
    }
    for i in 0..100 {
        match channel(i) {
            "open:a" => clients[0].must_hear("open:a", &json!(i)),
            "news:a" => clients[1].must_hear("news:a", &json!(i)),
            _ => {}
        }
    }
}

fn nodes_that_publish_to_one_channel_at_once_all_come_through(broker: &impl Broker) {
    let patient = |config: &mut fanfare::Config| config.broker.timeout = Duration::from_secs(20);
    let nodes = [(); 3].map(|()| node_with(&broker.url(), patient));
    let mut client = subscriber(&nodes[0], 1, "news:a");
    let publish = |node: &TestServer| {
        let receipts: Vec<_> =
            (0..700).map(|i| node.hub.publish("news:a", i.to_string())).collect();
        receipts.into_iter().for_each(|receipt| drop(receipt.wait().unwrap()));
    };
    std::thread::scope(|scope| nodes.iter().for_each(|node| drop(scope.spawn(|| publish(node)))));
    hear_up_to(&mut client, 0, 2100);
}

fn a_user_has_what_is_sent_to_it_on_every_node(broker: &impl Broker) {
    let nodes = [node(&broker.url()), node(&broker.url())];
    let mut tabs: Vec<_> = nodes.iter().map(|node| node.connect(42)).collect();
    for node in &nodes {
        node.hub.send_to_user(&UserId::from(42), "to 42").wait().unwrap();
        wait_until("both tabs count", || {
            node.result("user", &json!({"user": 42}))["connections"] == 2
        });
    }
    nodes[0].hub.broadcast("to all").wait().unwrap();
    nodes[1].result("disconnect", &json!({"user": 42}));
    for tab in &mut tabs {
        for text in ["to 42", "to 42", "to all"] {
            assert_eq!(tab.read_frame().text(), text);
        }
        assert_eq!(tab.read_close().0, 3503);
    }
}

fn the_chat_is_one_on_all_nodes(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let (mut one, mut other) = (here.connect(1), there.connect(2));
    one.send_text(r#"{"type":"message","body":"hi"}"#);
    for peer in [&mut one, &mut other] {
        assert!(peer.read_text().contains(r#""body":"hi""#));
    }
}

fn orders_reach_the_connections_of_every_node(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut clients = [here.client(42), there.client(42)];
    let order = json!({"user": "42", "channel": "news:a", "data": {"by": "order"}});
    assert_eq!(here.result("subscribe", &order)["connections"], 1);
    for client in &mut clients {
        let push = client.push();
        assert_eq!(push["subscribe"]["data"], json!({"by": "order"}), "{push}");
    }
    there.publish("news:a", &json!(1));
    for client in &mut clients {
        client.must_hear("news:a", &json!(1));
    }
    there.result("unsubscribe", &json!({"user": "42", "channel": "news:a"}));
    for client in &mut clients {
        assert_eq!(client.push()["unsubscribe"]["code"], 2000);
    }
    for _ in 0..20 {
        // However soon it comes back and is carried out.
        let _client = here.client(7);
        assert_eq!(here.result("disconnect", &json!({"user": "7"}))["connections"], 1);
    }
}

fn channels_are_those_of_all_nodes(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let _clients = [
        subscriber(&here, 1, "news:a"),
        subscriber(&there, 2, "news:a"),
        subscriber(&there, 3, "open:b"),
    ];
    let channels = |node: &TestServer, body: Value| {
        let (_, answer) = node.api("channels", &body.to_string());
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        answer["result"]["channels"].take()
    };
    let all = json!({"news:a": {"num_clients": 2}, "open:b": {"num_clients": 1}});
    for node in [&here, &there] {
        let nodes = || node.result("info", &json!({}))["nodes"].as_array().map(Vec::len);
        wait_until("the nodes know each other", || nodes() == Some(2));
        assert_eq!(channels(node, json!({})), all);
    }
    let some = json!({"open:b": {"num_clients": 1}});
    assert_eq!(channels(&here, json!({"pattern": "open:*"})), some);
    let (_, answer) = here.api("channels", r#"{"pattern":"["}"#);
    assert!(answer.contains(r#""code":107,"message":"bad request: "#), "{answer}");
    drop(there);
    let own = json!({"news:a": {"num_clients": 1}});
    wait_until("the other node is gone", || channels(&here, json!({})) == own);
}

fn an_idempotency_key_counts_on_all_nodes(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut client = subscriber(&there, 1, "news:a");
    let publish = json!({"channel": "news:a", "data": 1, "idempotency_key": "k"});
    let (first, again) = (here.result("publish", &publish), there.result("publish", &publish));
    assert_eq!((&first["offset"], &first["epoch"]), (&again["offset"], &again["epoch"]));
    there.publish("news:a", &json!(2));
    client.must_hear("news:a", &json!(1));
    client.must_hear("news:a", &json!(2));
}

fn an_idempotency_key_counts_without_history_too(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut client = subscriber(&there, 1, "open:a");
    let publish = json!({"channel": "open:a", "data": 1, "idempotency_key": "k"});
    for node in [&here, &there, &here] {
        node.result("publish", &publish);
    }
    there.publish("open:a", &json!(2));
    client.must_hear("open:a", &json!(1));
    client.must_hear("open:a", &json!(2));
}

fn what_is_for_a_user_and_for_all_comes_in_the_order_in_which_it_was_sent(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut tab = there.connect(42);
    for i in 0..100 {
        let text = i.to_string();
        let sent = match i % 3 {
            0 => here.hub.send_to_user(&UserId::from(42), &*text),
            _ => here.hub.broadcast(&*text),
        };
        drop(sent);
    }
    for i in 0..100 {
        assert_eq!(tab.read_frame().text(), i.to_string());
    }
}

fn history_is_forgotten_on_all_nodes(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut client = subscriber(&there, 1, "news:a");
    here.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    here.result("history_remove", &json!({"channel": "news:a"}));
    here.publish("news:a", &json!(2));
    client.must_hear("news:a", &json!(2));
    for node in [&here, &there] {
        let history = node.result("history", &json!({"channel": "news:a", "limit": 9}));
        assert_eq!(
            (data(&history["publications"]), &history["offset"]),
            (vec![json!(2)], &json!(2))
        );
    }
}

fn prefixes_keep_clusters_apart(broker: &impl Broker) {
    let ours = node_with(&broker.url(), |config| config.broker.prefix = "ours".to_owned());
    let theirs = node_with(&broker.url(), |config| config.broker.prefix = "theirs".to_owned());
    let mut client: Client = subscriber(&ours, 1, "news:a");
    theirs.publish("news:a", &json!("theirs"));
    ours.publish("news:a", &json!("ours"));
    client.must_hear("news:a", &json!("ours"));
}

fn what_a_node_was_given_before_it_ended_comes_on_the_others(broker: &impl Broker) {
    let (ending, here) = (node(&broker.url()), node(&broker.url()));
    let mut client = subscriber(&here, 1, "news:a");
    // Nobody waits for these, so no socket keeps the node from ending.
    (1..=500).for_each(|i| drop(ending.hub.publish("news:a", i.to_string())));
    drop(ending);
    hear_up_to(&mut client, 0, 500);
}
