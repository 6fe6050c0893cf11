use fanfare::Config;
use fanfare::config::{Anonymous, JoinLeave, Switch};
use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn presence_names_each_connection_and_counts_users() {
    let server = TestServer::with_channels(|_| {});
    let (mut ada, ada_info) = introduced(&server, "42");
    let (mut tab, tab_info) = introduced(&server, "42");
    let (mut grace, grace_info) = introduced(&server, "43");
    for client in [&mut ada, &mut tab, &mut grace] {
        client.subscribe("news:a");
    }
    let present = |client: &mut Client| {
        let clients = client.call("presence", &json!({"channel": "news:a"}))["presence"].take();
        let stats = client.call("presence_stats", &json!({"channel": "news:a"}));
        (clients, stats)
    };
    let by_client = |infos: &[&Value]| {
        let pairs =
            infos.iter().map(|info| (info["client"].as_str().unwrap().to_owned(), (*info).clone()));
        Value::Object(pairs.collect())
    };
    let all = by_client(&[&ada_info, &tab_info, &grace_info]);
    assert_eq!(present(&mut ada), (all, json!({"num_clients": 3, "num_users": 2})));
    tab.call("unsubscribe", &json!({"channel": "news:a"}));
    let two = by_client(&[&ada_info, &grace_info]);
    assert_eq!(present(&mut ada), (two, json!({"num_clients": 2, "num_users": 2})));
    // Gone without a Close.
    drop(grace);
    let one = (by_client(&[&ada_info]), json!({"num_clients": 1, "num_users": 1}));
    wait_until("one is left", || present(&mut ada) == one);
}

#[test]
fn each_connection_that_joins_or_leaves_is_told_to_those_who_ask() {
    let server = TestServer::with_channels(|config| hall(config, JoinLeave::Client));
    let (mut witness, own) = introduced(&server, "1");
    enter(&mut witness, true);
    assert_eq!(witness.push(), json!({"channel": "hall:a", "join": {"info": own}}));
    let (mut first, first_info) = introduced(&server, "42");
    let (mut second, second_info) = introduced(&server, "42");
    enter(&mut first, false);
    enter(&mut second, false);
    first.call("unsubscribe", &json!({"channel": "hall:a"}));
    drop(second);
    for (kind, info) in [
        ("join", &first_info),
        ("join", &second_info),
        ("leave", &first_info),
        ("leave", &second_info),
    ] {
        assert_eq!(witness.push(), json!({"channel": "hall:a", kind: {"info": info}}));
    }
    assert_eq!(first.take_pushes(), [] as [Value; 0]);
}

#[test]
fn a_user_joins_with_its_first_connection_and_leaves_with_its_last() {
    let server = TestServer::with_channels(|config| hall(config, JoinLeave::User));
    let (mut witness, own) = introduced(&server, "1");
    enter(&mut witness, true);
    assert_eq!(witness.push(), json!({"channel": "hall:a", "join": {"info": own}}));
    let (mut first, first_info) = introduced(&server, "42");
    let (mut second, second_info) = introduced(&server, "42");
    enter(&mut first, false);
    enter(&mut second, false);
    first.call("unsubscribe", &json!({"channel": "hall:a"}));
    second.call("unsubscribe", &json!({"channel": "hall:a"}));
    assert_eq!(witness.push(), json!({"channel": "hall:a", "join": {"info": first_info}}));
    assert_eq!(witness.push(), json!({"channel": "hall:a", "leave": {"info": second_info}}));
}

#[test]
fn who_comes_and_goes_without_end_waits_and_takes_no_one_elses_room() {
    let server = TestServer::with_channels(|config| {
        hall(config, JoinLeave::Client);
        config.limits.ring_messages = 16;
    });
    let mut client = server.client(42);
    let command = |id: usize| {
        let method = if id.is_multiple_of(2) { "subscribe" } else { "unsubscribe" };
        json!({"id": 1000 + id, method: {"channel": "hall:a"}}).to_string()
    };
    client.peer.send_text(&(0..400).map(command).collect::<Vec<_>>().join("\n"));
    for id in 1000..1400 {
        let reply = client.reply();
        assert_eq!((&reply["id"], &reply["error"]), (&json!(id), &Value::Null));
    }
    assert_eq!(server.metric("fanfare_presence_dropped_total"), 0.0);
}

#[test]
fn nobody_is_told_where_that_is_off() {
    let server = TestServer::with_channels(|config| hall(config, JoinLeave::Off));
    let (mut witness, mut other) = (server.client(1), server.client(2));
    enter(&mut witness, true);
    enter(&mut other, true);
    other.call("unsubscribe", &json!({"channel": "hall:a"}));
    server.publish("hall:a", &json!(1));
    witness.must_hear("hall:a", &json!(1));
}

#[test]
fn joins_take_their_place_among_publications() {
    let server = TestServer::with_channels(|config| hall(config, JoinLeave::Client));
    let mut witness = server.client(1);
    enter(&mut witness, true);
    witness.push();
    for i in 0..20 {
        let mut visitor = server.client(2);
        server.publish("hall:a", &json!(i));
        enter(&mut visitor, false);
        visitor.call("publish", &json!({"channel": "hall:a", "data": "in"}));
        visitor.call("unsubscribe", &json!({"channel": "hall:a"}));
        witness.must_hear("hall:a", &json!(i));
        assert!(witness.push().get("join").is_some());
        witness.must_hear("hall:a", &json!("in"));
        assert!(witness.push().get("leave").is_some());
        // It left before the next publication, and heard only its own.
        let heard: Vec<_> = visitor.take_pushes();
        assert!(heard.iter().all(|push| push["pub"]["data"] == "in"), "{heard:?}");
    }
}

#[test]
fn all_without_a_user_count_as_one() {
    let server = TestServer::with_channels(|config| {
        config.auth.anonymous = Anonymous::Read;
        hall(config, JoinLeave::User);
    });
    let mut clients = [server.stranger(), server.stranger()];
    for client in &mut clients {
        client.call("connect", &json!({}));
        enter(client, true);
    }
    let stats = clients[0].call("presence_stats", &json!({"channel": "hall:a"}));
    assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
    let joined = clients[0].push()["join"]["info"].take();
    assert_eq!(joined["user"], "", "{joined}");
}

/// Channels of `hall` tell of joins and leaves.
fn hall(config: &mut Config, join_leave: JoinLeave) {
    namespace(config, "hall", |hall| {
        hall.join_leave = join_leave;
        hall.presence = Switch::On;
        hall.anonymous = Switch::On;
    });
}

fn enter(client: &mut Client, join_leave: bool) {
    client.call("subscribe", &json!({"channel": "hall:a", "join_leave": join_leave}));
}

/// A client, and what others see of it.
fn introduced(server: &TestServer, user: &str) -> (Client, Value) {
    let mut client = server.stranger();
    let token = sign(&json!({"sub": user, "info": {"of": user}}));
    let connected = client.call("connect", &json!({"token": token}));
    let info = json!({"user": user, "client": connected["client"], "conn_info": {"of": user}});
    (client, info)
}
