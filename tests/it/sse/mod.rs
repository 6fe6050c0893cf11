//! Channels as Server-Sent Events: what comes, and how a stream ends.

// Who gets a stream, and how a refusal is told.
mod access;
pub mod event_source;
// What a peer gets when it comes back.
mod recovery;
// Streams that are read too slowly.
mod slow;

use std::time::Duration;

use fanfare::config::{Anonymous, Recovery, Subscribe, Switch};
use fanfare::{Config, Identity, UserId};

use crate::support::*;
use event_source::*;

#[test]
fn a_stream_begins_with_a_head_that_no_proxy_collects() {
    let server = TestServer::with(open_to_all);
    let stream = EventSource::open(&server, "?channels=news", "");
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-cache",
        "x-accel-buffering: no",
        "connection: close",
    ] {
        assert_header(&stream.head, line);
    }
    assert!(!stream.head.contains("content-length") && !stream.head.contains("transfer-encoding"));
    assert!(stream.head.contains("\r\ndate: "));
}

#[test]
fn a_publication_is_an_event_of_its_channel_with_the_position_after_it() {
    let server = TestServer::with(|config| {
        open_to_all(config);
        config.channel.history_size = 10;
    });
    let mut stream = EventSource::open(&server, "?channels=news", "");
    stream.read_position();
    let (epoch, offset) = stream.last_event_id.split_once(':').unwrap();
    assert_eq!((epoch.len(), offset), (8, "0"));
    let epoch = epoch.to_owned();
    publish(&server, "news", "{\"text\":\"a\\nb\",\n \"n\": 1}");
    stream.expect("news", r#"{"text":"a\nb", "n": 1}"#);
    assert_eq!(stream.last_event_id, format!("{epoch}:1"));
}

#[test]
fn a_channel_without_history_has_no_ids() {
    let server = TestServer::with(open_to_all);
    let mut stream = EventSource::open(&server, "?channels=news,weather", "");
    publish(&server, "news", "1");
    publish(&server, "weather", "2");
    stream.expect("news", "1");
    stream.expect("weather", "2");
    assert_eq!(stream.last_event_id, "");
}

#[test]
fn a_stream_of_several_channels_says_with_each_event_where_it_stands_on_all() {
    let server = TestServer::with(|config| {
        open_to_all(config);
        config.channel.history_size = 10;
        config.namespaces.insert("loose".into(), fanfare::config::Namespace::default());
        config.namespaces.get_mut("loose").unwrap().subscribe = Subscribe::Anyone;
        config.namespaces.get_mut("loose").unwrap().anonymous = Switch::On;
    });
    let mut stream = EventSource::open(&server, "?channels=b,loose:x&channel=a", "");
    stream.read_position();
    let offsets = |id: &str| -> Vec<String> {
        id.split(',').map(|it| it.split_once(':').map_or("", |it| it.1).to_owned()).collect()
    };
    assert_eq!(offsets(&stream.last_event_id), ["0", "", "0"]);
    for (channel, expected) in
        [("a", ["0", "", "1"]), ("loose:x", ["0", "", "1"]), ("b", ["1", "", "1"])]
    {
        publish(&server, channel, "1");
        stream.expect(channel, "1");
        assert_eq!(offsets(&stream.last_event_id), expected);
    }
}

#[test]
fn what_goes_to_all_or_to_a_user_is_an_event_without_name_and_id() {
    let server = TestServer::start();
    let bearer = format!("authorization: Bearer {}\r\n", server.token(42));
    let mut stream = EventSource::open(&server, "", &bearer);
    assert_eq!(server.hub.user_connections(&UserId::from(42)), 1);
    server.hub.broadcast("{\"to\":\n\"all\"}").wait().unwrap();
    assert_eq!(server.hub.send_to_user(&UserId::from(42), r#"{"to":42}"#).wait(), Ok(1));
    stream.expect("", r#"{"to":"all"}"#);
    stream.expect("", r#"{"to":42}"#);
    assert_eq!(stream.last_event_id, "");
}

#[test]
fn what_is_said_in_the_chat_is_on_its_channel() {
    let server = TestServer::with(open_to_all);
    let mut stream = EventSource::open(&server, "?channels=chat", "");
    let mut peer = server.connect(42);
    peer.send_text(r#"{"type":"message","body":"hello"}"#);
    stream.expect("chat", &peer.read_message());
}

#[test]
fn a_comment_comes_at_each_interval_and_no_answer_is_waited_for() {
    let server = TestServer::with(|config| {
        open_to_all(config);
        config.heartbeat.interval = Duration::from_millis(100);
        config.heartbeat.timeout = Duration::from_millis(100);
    });
    let mut stream = EventSource::open(&server, "?channels=news", "");
    for _ in 0..10 {
        assert_eq!(stream.line().as_deref(), Some(":"));
    }
    publish(&server, "news", "1");
    stream.expect("news", "1");
}

#[test]
fn a_stream_says_why_it_ends() {
    let server = TestServer::start();
    let bearer = format!("authorization: Bearer {}\r\n", server.token(42));
    let mut stream = EventSource::open(&server, "", &bearer);
    let reason = fanfare::CloseReason::new(4100, "be \"gone\"").unwrap();
    server.hub.broadcast("1").wait().unwrap();
    server.hub.disconnect_user(&UserId::from(42), reason).wait().unwrap();
    stream.expect("", "1");
    stream.expect("disconnect", r#"{"code":4100,"reason":"be \"gone\""}"#);
    assert_eq!(stream.next(), None);
    assert_eq!(server.metric(r#"fanfare_closes_total{code="4100"}"#), 1.0);
}

#[test]
fn a_backend_ends_one_subscription_and_the_others_go_on() {
    let server = TestServer::with(|config| {
        open_to_all(config);
        config.channel.history_size = 10;
    });
    let bearer = format!("authorization: Bearer {}\r\n", server.token(42));
    let mut stream = EventSource::open(&server, "?channels=news,weather", &bearer);
    stream.read_position();
    let ordered = server.api("unsubscribe", r#"{"user":"42","channel":"news"}"#);
    assert_eq!(ordered.0, 200, "{}", ordered.1);
    stream
        .expect("unsubscribed", r#"{"channel":"news","code":2000,"reason":"server unsubscribe"}"#);
    publish(&server, "news", "1");
    publish(&server, "weather", "2");
    stream.expect("weather", "2");
    assert_eq!(server.metric("fanfare_subscriptions"), 1.0);
}

#[test]
fn what_a_backend_orders_in_another_protocol_does_not_show() {
    let server = TestServer::with(open_to_all);
    let bearer = format!("authorization: Bearer {}\r\n", server.token(42));
    let mut stream = EventSource::open(&server, "?channels=news", &bearer);
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    let later = later.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (method, body) in [
        ("subscribe", r#"{"user":"42","channel":"weather"}"#.to_owned()),
        ("refresh", format!(r#"{{"user":"42","expire_at":{later}}}"#)),
    ] {
        let (status, answer) = server.api(method, &body);
        assert!(status == 200 && !answer.contains("error"), "{answer}");
    }
    publish(&server, "weather", "1");
    publish(&server, "news", "2");
    stream.expect("news", "2");
    let (status, _) = server.api("refresh", r#"{"user":"42","expired":true}"#);
    assert_eq!(status, 200);
    stream.expect("disconnect", r#"{"code":3005,"reason":"expired"}"#);
}

#[test]
fn a_drain_says_so_after_what_was_published() {
    let mut server = TestServer::with(open_to_all);
    let mut stream = EventSource::open(&server, "?channels=news", "");
    publish(&server, "news", "1");
    server.shut_down();
    stream.expect("news", "1");
    stream.expect("disconnect", r#"{"code":3001,"reason":"shutdown"}"#);
    assert_eq!(stream.next(), None);
    drop(stream);
    server.join();
}

#[test]
fn a_stream_ends_with_its_token() {
    let server = TestServer::start();
    let token = server.token_for(&Identity::new(UserId::from(42)), Duration::from_secs(1));
    let mut stream = EventSource::open(&server, &format!("?token={token}"), "");
    stream.expect("disconnect", r#"{"code":3005,"reason":"expired"}"#);
    assert_eq!(stream.next(), None);
}

#[test]
fn a_peer_that_ends_is_forgotten_with_its_subscriptions() {
    let server = TestServer::with(open_to_all);
    let stream = EventSource::open(&server, "?channels=news,weather", "");
    assert_eq!(server.metric("fanfare_subscriptions"), 2.0);
    stream.peer.shut_down_writing();
    wait_until("it is forgotten", || server.hub.connections() == 0);
    assert_eq!(server.metric("fanfare_subscriptions"), 0.0);
    wait_until("its socket is gone", || server.metric("fanfare_sockets") == 1.0);
}

#[test]
fn what_a_peer_still_sends_is_discarded() {
    let server = TestServer::with(open_to_all);
    let mut stream = EventSource::open(&server, "?channels=news", "");
    for _ in 0..100 {
        stream.peer.send(&[b'x'; 10_000]);
    }
    publish(&server, "news", "1");
    stream.expect("news", "1");
}

#[test]
fn answers_to_requests_before_it_on_the_socket_come_first() {
    let server = TestServer::with(open_to_all);
    let mut peer = server.dial();
    let health = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    peer.send(format!("{health}{}", get("?channels=news", "")).as_bytes());
    assert!(peer.read_answer().1.ends_with("\r\n\r\nok\n"));
    EventSource::on(peer);
}

#[test]
fn http_1_0_gets_a_stream_too() {
    let server = TestServer::with(open_to_all);
    let mut peer = server.dial();
    peer.send(b"GET /sse?channels=news HTTP/1.0\r\n\r\n");
    let mut stream = EventSource::on(peer);
    publish(&server, "news", "1");
    stream.expect("news", "1");
}

#[test]
fn a_cache_gives_its_latest_publication_at_once_and_not_twice() {
    let server = TestServer::with(|config| {
        open_to_all(config);
        config.channel.history_size = 1;
        config.channel.recovery = Recovery::Cache;
    });
    let mut first = EventSource::open(&server, "?channels=price", "");
    publish(&server, "price", "1");
    first.expect("price", "1");
    publish(&server, "price", "2");
    let mut stream = EventSource::open(&server, "?channels=price", "");
    stream.expect("price", "2");
    let mut stream = stream.reopen(&server, "?channels=price");
    publish(&server, "price", "3");
    stream.expect("price", "3");
}

/// Channels outside of any namespace are for everyone, with a token or without.
pub fn open_to_all(config: &mut Config) {
    config.auth.anonymous = Anonymous::Read;
    config.channel.subscribe = Subscribe::Anyone;
    config.channel.anonymous = Switch::On;
}

/// Publishes JSON to a channel.
pub fn publish(server: &TestServer, channel: &str, data: &str) {
    let (status, answer) =
        server.api("publish", &format!(r#"{{"channel":"{channel}","data":{data}}}"#));
    assert_eq!(status, 200, "{answer}");
}
