use std::time::Duration;

use fanfare::config::{Publish, Subscribe};
use serde_json::{Value, json};

use crate::client::*;
use crate::embedder::{Embedder, adopt_blocker, hold};
use crate::support::*;

#[test]
fn an_unknown_namespace_is_error_102() {
    let server = TestServer::with_channels(|_| {});
    let channel = json!({"channel": "nowhere:a"});
    for method in ["subscribe", "presence", "presence_stats", "history", "sub_refresh"] {
        must_refuse(&server, 102, method, &channel);
    }
    must_refuse(&server, 102, "publish", &json!({"channel": "nowhere:a", "data": 1}));
    let error = server.client(1).ask("subscribe", &channel)["error"].take();
    assert_eq!(error, json!({"code": 102, "message": "unknown channel"}));
}

#[test]
fn what_one_may_not_do_is_error_103() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "private", |private| private.subscribe = Subscribe::Token);
        namespace(config, "named", |named| named.subscribe = Subscribe::Named);
        namespace(config, "muted", |muted| muted.publish = Publish::Nobody);
        namespace(config, "licensed", |licensed| licensed.publish = Publish::Token);
    });
    let grants = |user: &str, channel: &str| json!({"channel": "private:a", "token": sign(&json!({"sub": user, "channel": channel}))});
    for body in [
        json!({"channel": "private:a"}),
        json!({"channel": "private:a", "token": "nonsense"}),
        grants("2", "private:a"),
        grants("1", "private:b"),
        json!({"channel": "named:a"}),
        json!({"channel": "named:a#2,3"}),
        json!({"channel": "open:a#2"}),
        // Outside of any namespace a token is asked for.
        json!({"channel": "a"}),
    ] {
        must_refuse(&server, 103, "subscribe", &body);
    }
    must_refuse(&server, 103, "publish", &json!({"channel": "open:a", "data": 1}));
    let mut client = server.client(1);
    for channel in ["muted:a", "licensed:a"] {
        client.subscribe(channel);
        assert_eq!(client.refusal("publish", &json!({"channel": channel, "data": 1})), 103);
    }
    for method in ["history", "presence", "presence_stats"] {
        must_refuse(&server, 103, method, &json!({"channel": "news:a"}));
    }
    let token = sign(&json!({"sub": "1", "channel": "news:a"}));
    must_refuse(&server, 103, "sub_refresh", &json!({"channel": "news:a", "token": token}));
}

#[test]
fn a_second_subscribe_is_error_105() {
    let server = TestServer::with_channels(|_| {});
    must_refuse(&server, 105, "subscribe", &json!({"channel": "news:held"}));
}

#[test]
fn a_command_that_lacks_something_is_error_107() {
    let server = TestServer::with_channels(|config| config.limits.channel_bytes = 20);
    for channel in ["", "open:\u{0}", "open:0123456789012345"] {
        must_refuse(&server, 107, "subscribe", &json!({"channel": channel}));
        must_refuse(&server, 107, "history", &json!({"channel": channel}));
        must_refuse(&server, 107, "publish", &json!({"channel": channel, "data": 1}));
    }
    must_refuse(&server, 107, "subscribe", &json!({}));
    must_refuse(&server, 107, "publish", &json!({"channel": "open:held"}));
    server.client(1).subscribe("open:012345678901234");
}

#[test]
fn what_a_namespace_does_not_have_is_error_108() {
    let server = TestServer::with_channels(|_| {});
    for method in ["history", "presence", "presence_stats"] {
        must_refuse(&server, 108, method, &json!({"channel": "open:held"}));
    }
    must_refuse(&server, 108, "rpc", &json!({"method": "any", "data": {}}));
}

#[test]
fn an_expired_token_is_error_109() {
    let server = TestServer::with_channels(|_| {});
    let claims = json!({"sub": "1", "channel": "news:a", "exp": in_seconds(-1)});
    let body = json!({"channel": "news:a", "token": sign(&claims)});
    must_refuse(&server, 109, "subscribe", &body);
    let body = json!({"channel": "news:held", "token": sign(&claims)});
    must_refuse(&server, 109, "sub_refresh", &body);
    let mut client = server.stranger();
    let token = sign(&json!({"sub": "1", "exp": in_seconds(-1)}));
    let error = client.ask("connect", &json!({"token": token}))["error"].take();
    assert_eq!(error, json!({"code": 109, "message": "token expired"}));
}

#[test]
fn a_publish_that_finds_no_room_in_time_is_error_111_and_may_be_tried_again() {
    let server = TestServer::with_channels(|config| {
        config.server.shards = 2;
        config.limits.ring_messages = 4;
        config.limits.publish_wait = Duration::from_millis(100);
    });
    let embedder = Embedder::with(&server.hub, adopt_blocker);
    // One shard for the connection that holds it up, the other for the client.
    let mut blocker = embedder.open();
    embedder.outcomes.recv().unwrap().unwrap();
    let mut client = server.client(1);
    client.subscribe("open:a");
    let held = hold(&mut blocker);
    let publish = |data: i32| json!({"channel": "open:a", "data": data});
    client.call("publish", &publish(1));
    let error = client.ask("publish", &publish(2))["error"].take();
    assert_eq!(error, json!({"code": 111, "message": "too many requests", "temporary": true}));
    // What needs no room is answered meanwhile.
    assert_eq!(client.refusal("rpc", &json!({})), 108);
    drop(held);
    client.call("publish", &publish(3));
    client.must_hear("open:a", &json!(1));
    client.must_hear("open:a", &json!(3));
}

#[test]
fn ten_errors_in_ten_seconds_close_with_3509() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.subscribe("open:a");
    for _ in 0..9 {
        assert_eq!(client.refusal("rpc", &json!({})), 108);
    }
    server.publish("open:a", &json!(1));
    client.must_hear("open:a", &json!(1));
    assert_eq!(client.refusal("rpc", &json!({})), 108);
    assert_eq!(client.peer.read_close(), (3509, "too many errors".into()));
}

#[test]
fn errors_that_are_no_fault_of_the_client_are_not_counted() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    let gone = json!({"channel": "news:a", "recover": true, "offset": 9, "epoch": "x", "flag": 2});
    for _ in 0..20 {
        assert_eq!(client.refusal("subscribe", &gone), 112);
    }
    client.subscribe("news:a");
}

/// Has a client refused something. Its other channels, and those of others, go on.
fn must_refuse(server: &TestServer, code: u64, method: &str, body: &Value) {
    let (mut client, mut other) = (server.client(1), server.client(2));
    for channel in ["news:held", "open:held"] {
        client.subscribe(channel);
    }
    other.subscribe("open:held");
    assert_eq!(client.refusal(method, body), code, "{method} {body}");
    client.call("publish", &json!({"channel": "open:held", "data": "goes on"}));
    client.must_hear("open:held", &json!("goes on"));
    other.must_hear("open:held", &json!("goes on"));
    server.publish("news:held", &json!("too"));
    client.must_hear("news:held", &json!("too"));
}
