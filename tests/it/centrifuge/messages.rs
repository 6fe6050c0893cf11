use std::time::Duration;

use fanfare::config::Announce;
use fanfare::internals::lose_entry;
use fanfare::{CloseReason, UserId};
use serde_json::json;

use crate::client::*;
use crate::support::*;

#[test]
fn what_goes_to_all_or_to_a_user_comes_as_a_message() {
    let server = TestServer::with_channels(|_| {});
    let (mut ada, mut tab, mut grace) = (server.client(42), server.client(42), server.client(43));
    let mut chat = server.connect(42);
    let sent = server.api("send_to_user", r#"{"user":42,"data":{"to": "you"}}"#).1;
    assert_eq!(sent, r#"{"result":{"connections":3}}"#);
    server.hub.broadcast("[1,\n2]").wait().unwrap();
    for client in [&mut ada, &mut tab] {
        assert_eq!(client.push(), json!({"message": {"data": {"to": "you"}}}));
    }
    for client in [&mut ada, &mut tab, &mut grace] {
        assert_eq!(client.push(), json!({"message": {"data": [1, 2]}}));
    }
    assert_eq!(chat.read_text(), r#"{"to": "you"}"#);
    assert_eq!(chat.read_text(), "[1,\n2]");
}

#[test]
fn the_chat_is_a_channel() {
    let server = TestServer::with_channels(|config| {
        config.channel = config.namespaces["news"].clone();
        config.chat.channel = "lobby".to_owned();
    });
    let mut client = server.client(1);
    client.subscribe("lobby");
    let mut chat = server.connect(2);
    chat.send_text(r#"{"type":"message","body":"hi"}"#);
    let said = json!({"type": "message", "user_id": 2, "name": "User 2", "body": "hi"});
    let push = json!({"channel": "lobby", "pub": {"data": said, "offset": 1}});
    assert_eq!(client.push(), push);
    chat.read_text();
    server.publish("lobby", &json!({"type": "notification"}));
    client.must_hear("lobby", &json!({"type": "notification"}));
    assert_eq!(chat.read_text(), r#"{"type":"notification"}"#);
    let page = client.call("history", &json!({"channel": "lobby", "limit": 1}));
    assert_eq!(data(&page["publications"]), [said]);
    server.api("broadcast_all", r#"{"data":{"to":"all"}}"#);
    assert_eq!(client.push(), json!({"message": {"data": {"to": "all"}}}));
    client.must_hear("lobby", &json!({"to": "all"}));
    assert_eq!(chat.read_text(), r#"{"to":"all"}"#);
}

#[test]
fn a_publish_to_the_chat_counts_who_chats_and_who_subscribes() {
    let server = TestServer::with_channels(|config| {
        config.chat.announce = Announce::Off;
        config.channel = config.namespaces["open"].clone();
    });
    let publish = || server.api("publish", r#"{"channel":"chat","data":1}"#).1;
    let (mut client, _chat) = (server.client(1), server.connect(2));
    assert_eq!(publish(), r#"{"result":{"connections":1}}"#);
    client.subscribe("chat");
    assert_eq!(publish(), r#"{"result":{"connections":2}}"#);
    assert_eq!(server.hub.broadcast("1").wait(), Ok(2));
}

#[test]
fn text_that_is_no_json_comes_as_a_string() {
    let server = TestServer::with_channels(|config| {
        config.channel = config.namespaces["news"].clone();
    });
    let mut client = server.client(1);
    client.subscribe("chat");
    server.hub.broadcast("say \"x\"").wait().unwrap();
    assert_eq!(client.push(), json!({"message": {"data": "say \"x\""}}));
    client.must_hear("chat", &json!("say \"x\""));
    let page = client.call("history", &json!({"channel": "chat", "limit": 1}));
    assert_eq!(data(&page["publications"]), [json!("say \"x\"")]);
}

#[test]
fn a_message_of_a_client_wants_no_reply() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.peer.send_text(r#"{"send":{"data":{"any":1}}}"#);
    assert_eq!(client.subscribe("open:a"), json!({}));
}

#[test]
fn who_unsubscribes_hears_no_more_and_may_come_again() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.subscribe("open:a");
    client.subscribe("open:b");
    assert_eq!(client.call("unsubscribe", &json!({"channel": "open:a"})), json!({}));
    // To leave what one is not in is no fault.
    assert_eq!(client.call("unsubscribe", &json!({"channel": "open:a"})), json!({}));
    server.publish("open:a", &json!(1));
    server.publish("open:b", &json!(2));
    client.must_hear("open:b", &json!(2));
    client.subscribe("open:a");
    server.publish("open:a", &json!(3));
    client.must_hear("open:a", &json!(3));
}

#[test]
fn a_backend_ends_a_subscription_with_2000_and_a_connection_with_its_code() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(42);
    client.subscribe("open:a");
    client.subscribe("open:b");
    assert_eq!(server.api("unsubscribe", r#"{"user":"42","channel":"open:a"}"#).0, 200);
    let unsubscribe = json!({"code": 2000, "reason": "server unsubscribe"});
    assert_eq!(client.push(), json!({"channel": "open:a", "unsubscribe": unsubscribe}));
    server.publish("open:a", &json!(1));
    server.publish("open:b", &json!(2));
    client.must_hear("open:b", &json!(2));
    let reason = CloseReason::new(4500, "banned").unwrap();
    server.hub.disconnect_user(&UserId::from(42), reason).wait().unwrap();
    assert_eq!(client.peer.read_close(), (4500, "banned".into()));
}

#[test]
fn a_gap_ends_the_subscription_with_2500_and_what_is_missing_is_recovered() {
    let server = TestServer::with_channels(|_| {});
    let (mut client, mut other) = (server.client(1), server.client(2));
    let epoch = client.subscribe("news:a")["epoch"].take();
    client.subscribe("open:a");
    other.subscribe("news:b");
    server.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    lose_entry(&server.hub, "news:a");
    server.publish("news:a", &json!(2));
    let unsubscribe = json!({"code": 2500, "reason": "insufficient state"});
    assert_eq!(client.push(), json!({"channel": "news:a", "unsubscribe": unsubscribe}));
    server.publish("open:a", &json!(1));
    client.must_hear("open:a", &json!(1));
    let entered = client.recover("news:a", 1, &epoch);
    assert_eq!(
        (&entered["recovered"], data(&entered["publications"])),
        (&json!(true), vec![json!(2)])
    );
    server.publish("news:b", &json!(1));
    other.must_hear("news:b", &json!(1));
    assert_eq!(server.metric("fanfare_gaps_total"), 1.0);
}

#[test]
fn a_gap_is_found_though_nothing_follows_it() {
    let server =
        TestServer::with_channels(|config| config.heartbeat.interval = Duration::from_millis(100));
    let (mut client, mut other) = (server.client(1), server.client(2));
    for channel in ["news:a", "open:a"] {
        client.subscribe(channel);
    }
    other.subscribe("news:b");
    lose_entry(&server.hub, "news:a");
    lose_entry(&server.hub, "open:a");
    let unsubscribe = json!({"code": 2500, "reason": "insufficient state"});
    assert_eq!(client.push(), json!({"channel": "news:a", "unsubscribe": unsubscribe}));
    for (client, channel) in [(&mut client, "open:a"), (&mut other, "news:b")] {
        server.publish(channel, &json!(1));
        client.must_hear(channel, &json!(1));
    }
}

#[test]
fn a_gap_closes_with_3010_who_the_server_subscribed() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client_with(&json!({"sub": "1", "channels": ["news:a", "news:b"]}));
    lose_entry(&server.hub, "news:a");
    server.publish("news:b", &json!(1));
    client.must_hear("news:b", &json!(1));
    server.publish("news:a", &json!(1));
    assert_eq!(client.peer.read_close(), (3010, "insufficient state".into()));
}

#[test]
fn a_drain_closes_with_3001_after_what_was_published() {
    let mut server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.subscribe("open:a");
    for i in 0..100 {
        server.publish("open:a", &json!(i));
    }
    server.shut_down();
    for i in 0..100 {
        client.must_hear("open:a", &json!(i));
    }
    assert_eq!(client.peer.read_close(), (3001, "shutdown".into()));
    drop(client);
    server.join();
}
