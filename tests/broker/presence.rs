//! Who is here, as all nodes know it.

use std::time::Duration;

use fanfare::config::{Announce, HookCall, JoinLeave, Secret, Switch};
use fanfare::{Config, UserId};
use serde_json::json;

use crate::client::namespace;
use crate::node::{Broker, node, node_with, on_both, subscriber};
use crate::receiver::{HOOK_SECRET, Receiver};
use crate::records::Records;
use crate::support::*;

on_both! {
    a_user_joins_and_leaves_once_however_many_nodes_it_is_on,
    presence_of_a_channel_has_the_clients_of_all_nodes,
    joins_and_leaves_of_a_channel_are_told_on_all_nodes_by_user,
    whoever_was_on_a_node_that_is_gone_leaves_within_its_lease,
    a_node_that_lost_its_lease_enters_its_own_anew,
    after_the_broker_lost_all_nobody_joins_again_but_who_is_new,
    who_left_as_the_broker_lost_all_leaves_if_no_other_node_has_it,
    a_node_that_ends_in_order_takes_its_users_along_at_once,
    info_tells_of_all_nodes,
    an_application_is_told_of_a_user_once_for_all_nodes,
    a_node_that_does_not_say_which_channels_it_has_is_told,
}

/// Users are told of each other, and linger briefly.
fn announce(config: &mut Config) {
    config.chat.announce = Announce::User;
    config.chat.linger = Duration::from_millis(300);
    namespace(config, "room", |room| {
        room.presence = Switch::On;
        room.join_leave = JoinLeave::User;
    });
}

fn a_user_joins_and_leaves_once_however_many_nodes_it_is_on(broker: &impl Records) {
    let nodes = [node_with(&broker.url(), announce), node_with(&broker.url(), announce)];
    let mut watcher = nodes[0].open(1);
    assert!(watcher.read_text().contains(r#""user_joined","user_id":1"#));
    let mut tabs = Vec::new();
    for node in &nodes {
        let mut tab = node.open(42);
        let text = tab.read_text();
        assert!(
            text.contains(r#""user_joined","user_id":42"#) && text.contains(r#""count":2"#),
            "{text}"
        );
        tabs.push(tab);
    }
    assert!(watcher.read_text().contains(r#""user_joined","user_id":42"#));
    tabs.remove(0);
    wait_until("one tab is left", || broker.user(42).matches(".0").count() == 1);
    nodes[1].hub.broadcast("still here").wait().unwrap();
    assert_eq!(watcher.read_text(), "still here");
    tabs.clear();
    let text = watcher.read_text();
    assert!(
        text.contains(r#""user_left","user_id":42"#) && text.contains(r#""count":1"#),
        "{text}"
    );
}

fn an_application_is_told_of_a_user_once_for_all_nodes(broker: &impl Records) {
    let application = Receiver::agreeing();
    let hooked = |config: &mut Config| {
        announce(config);
        config.hook.url = format!("http://{}/hook", application.address);
        config.hook.secret = Some(Secret::new(HOOK_SECRET));
        config.hook.calls = vec![HookCall::Users];
    };
    let notice = || {
        let mut post = application.post();
        assert_eq!(post["notices"].as_array().map(Vec::len), Some(1), "{post}");
        let notice = post["notices"][0].take();
        (notice["notice"].clone(), notice["user"].clone())
    };
    let nodes = [(); 2].map(|()| node_with(&broker.url(), hooked));
    let mut tabs = vec![nodes[0].open(42)];
    assert_eq!(notice(), (json!("user_joined"), json!("42")));
    tabs.push(nodes[1].open(42));
    wait_until("both tabs are entered", || broker.user(42).matches(".0").count() == 2);
    tabs.remove(0);
    wait_until("one tab is left", || broker.user(42).matches(".0").count() == 1);
    assert!(application.is_left_alone());
    tabs.clear();
    assert_eq!(notice(), (json!("user_left"), json!("42")));
    broker.enter_ghost();
    assert_eq!(notice(), (json!("user_left"), json!("42")));
}

fn a_node_that_does_not_say_which_channels_it_has_is_told(broker: &impl Records) {
    let node = node(&broker.url());
    broker.enter_silent();
    wait_until("it is missed", || {
        let (_, answer) = node.api("channels", "{}");
        answer.contains(r#""code":100,"message":"a node does not answer: silent; "#)
    });
}

fn presence_of_a_channel_has_the_clients_of_all_nodes(broker: &impl Broker) {
    let (here, there) = (node(&broker.url()), node(&broker.url()));
    let mut one = subscriber(&here, 1, "news:a");
    let other = subscriber(&there, 2, "news:a");
    let count = |node: &TestServer| {
        let stats = node.result("presence_stats", &json!({"channel": "news:a"}));
        (stats["num_clients"].as_u64().unwrap(), stats["num_users"].as_u64().unwrap())
    };
    for node in [&here, &there] {
        wait_until("both are seen", || count(node) == (2, 2));
    }
    let present = one.call("presence", &json!({"channel": "news:a"}));
    let mut users: Vec<_> = present["presence"].as_object().unwrap().values().collect();
    users.sort_by_key(|info| info["user"].to_string());
    assert_eq!((&users[0]["user"], &users[1]["user"]), (&json!("1"), &json!("2")));
    assert_eq!(one.call("presence_stats", &json!({"channel": "news:a"}))["num_users"], 2);
    drop(other);
    wait_until("one is seen", || count(&here) == (1, 1));
}

fn joins_and_leaves_of_a_channel_are_told_on_all_nodes_by_user(broker: &impl Broker) {
    let nodes = [node_with(&broker.url(), announce), node_with(&broker.url(), announce)];
    let mut watcher = nodes[0].client(1);
    let watching = json!({"channel": "room:a", "join_leave": true});
    watcher.call("subscribe", &watching);
    assert_eq!(watcher.push()["join"]["info"]["user"], "1");
    let mut tabs: Vec<_> = nodes.iter().map(|node| subscriber(node, 42, "room:a")).collect();
    assert_eq!(watcher.push()["join"]["info"]["user"], "42");
    let stats = |node: &TestServer| node.result("presence_stats", &json!({"channel": "room:a"}));
    wait_until("both tabs are entered", || stats(&nodes[1])["num_clients"] == 3);
    tabs.remove(0);
    wait_until("one tab is left", || stats(&nodes[1])["num_clients"] == 2);
    nodes[1].publish("room:a", &json!("still here"));
    watcher.must_hear("room:a", &json!("still here"));
    tabs.clear();
    assert_eq!(watcher.push()["leave"]["info"]["user"], "42");
}

fn whoever_was_on_a_node_that_is_gone_leaves_within_its_lease(broker: &impl Records) {
    let here = node_with(&broker.url(), announce);
    let mut watcher = here.open(1);
    watcher.read_text();
    broker.enter_ghost();
    let text = watcher.read_text();
    assert!(text.contains(r#""user_left","user_id":42,"name":"Ghost""#), "{text}");
    wait_until("nothing is left of it", || !broker.has_ghost());
    let stats = here.result("presence_stats", &json!({"channel": "news:a"}));
    assert_eq!(stats["num_clients"], 0);
}

fn a_node_that_lost_its_lease_enters_its_own_anew(broker: &impl Records) {
    let node = node(&broker.url());
    let _client = subscriber(&node, 42, "news:a");
    wait_until("the user is entered", || broker.user(42).contains(".0"));
    broker.forget_all();
    wait_until("the user is entered under another lease", || broker.user(42).contains(".1"));
    let user = |node: &TestServer| node.result("user", &json!({"user": 42}))["connections"].clone();
    assert_eq!(user(&node), 1);
    let stats = || node.result("presence_stats", &json!({"channel": "news:a"}));
    wait_until("the client is entered", || stats()["num_clients"] == 1);
}

fn after_the_broker_lost_all_nobody_joins_again_but_who_is_new(broker: &impl Records) {
    let node = node_with(&broker.url(), announce);
    let mut watcher = node.open(1);
    assert!(watcher.read_text().contains(r#""user_joined","user_id":1"#));
    wait_until("the user is entered", || broker.user(1).contains(".0"));
    broker.forget_all();
    wait_until("the user is entered under another lease", || broker.user(1).contains(".1"));
    let _tab = node.open(42);
    let text = watcher.read_text();
    assert!(text.contains(r#""user_joined","user_id":42"#), "{text}");
}

fn who_left_as_the_broker_lost_all_leaves_if_no_other_node_has_it(broker: &mut impl Records) {
    let nodes = [(); 2].map(|()| node_with(&broker.url(), announce));
    let mut watcher = nodes[1].open(1);
    watcher.read_text();
    let tabs = [nodes[0].open(42), nodes[0].open(43)];
    let _stays = nodes[1].open(42);
    for _ in 0..2 {
        assert!(watcher.read_text().contains(r#""user_joined""#));
    }
    wait_until("all are entered", || broker.user(42).matches(".0").count() == 2);
    broker.kill();
    drop(tabs);
    // Longer than they linger.
    std::thread::sleep(Duration::from_secs(1));
    broker.restart_empty();
    let text = watcher.read_text();
    assert!(text.contains(r#""user_left","user_id":43"#), "{text}");
    nodes[0].hub.broadcast("still here").wait().unwrap();
    assert_eq!(watcher.read_text(), "still here");
}

fn a_node_that_ends_in_order_takes_its_users_along_at_once(broker: &impl Broker) {
    let here = node_with(&broker.url(), |config| {
        announce(config);
        config.broker.lease = Duration::from_secs(60);
    });
    let mut watcher = here.open(1);
    watcher.read_text();
    let mut there = node_with(&broker.url(), |config| {
        announce(config);
        config.broker.lease = Duration::from_secs(60);
        config.chat.linger = Duration::from_secs(60);
    });
    let _tab = there.open(42);
    assert!(watcher.read_text().contains("user_joined"));
    there.shut_down();
    there.join();
    assert!(watcher.read_text().contains(r#""user_left","user_id":42"#));
    assert_eq!(here.hub.user_connections(&UserId::from(42)), 0);
}

fn info_tells_of_all_nodes(broker: &impl Broker) {
    let nodes = [node(&broker.url()), node(&broker.url())];
    for node in &nodes {
        wait_until("both are told of", || {
            node.result("info", &json!({}))["nodes"].as_array().unwrap().len() == 2
        });
    }
}
