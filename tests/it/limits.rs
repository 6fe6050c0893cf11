use std::time::{Duration, Instant};

use fanfare::{Config, PublishError};

use crate::embedder::{Embedder, Held, adopt_blocker, hold};
use crate::support::*;

#[test]
fn over_the_limit_of_connections_a_socket_is_told_503() {
    let server = TestServer::with(|config| config.limits.connections = Some(2));
    let _ada = server.connect(1);
    let grace = server.connect(2);
    let path = format!("/ws/chat?token={}", server.token(3));
    let (status, answer) = server.request(&handshake(&path, ""));
    assert_eq!(status, 503);
    assert_header(&answer, "retry-after: 1");
    drop(grace);
    wait_until("there is room again", || server.hub.connections() == 1);
    wait_until("it is let in", || {
        let mut peer = server.dial();
        peer.send(handshake(&path, "").as_bytes());
        peer.read_head().starts_with("HTTP/1.1 101 ")
    });
    let full = r#"fanfare_handshake_failures_total{reason="full"}"#;
    wait_until("a refusal is counted", || server.metric(full) >= 1.0);
}

#[test]
fn accept_passes_a_shard_that_is_full() {
    let mut stuck = Stuck::start(|config| config.limits.inbox = 1);
    let _held = stuck.hold();
    // The held shard's inbox takes one of ten more sockets, and the free shard all others.
    let mut peers = Vec::new();
    let mut served = 0;
    for _ in 0..10 {
        let mut peer = stuck.server.dial();
        peer.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        peer.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        if peer.stream.peek(&mut [0]).is_ok() {
            assert_eq!(peer.read_answer().0, 200);
            served += 1;
        }
        peers.push(peer);
    }
    assert_eq!(served, 9);
}

#[test]
fn accept_answers_503_when_every_shard_is_full() {
    let server = TestServer::with(|config| config.limits.inbox = 1);
    let embedder = Embedder::with(&server.hub, adopt_blocker);
    let mut blocker = embedder.open();
    embedder.outcomes.recv().unwrap().unwrap();
    let held = hold(&mut blocker);
    let mut waits = server.dial();
    waits.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(server.request("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").0, 503);
    drop(held);
    assert_eq!(waits.read_answer().0, 200);
}

#[test]
fn no_connection_holds_more_than_a_quarter_of_the_ring() {
    let mut stuck = Stuck::start(|config| {
        config.limits.ring_messages = 16;
        config.limits.publish_wait = Duration::from_secs(20);
    });
    let held = stuck.hold();
    for i in 0..6 {
        stuck.publisher.send_text(&format!(r#"{{"type":"message","body":{i}}}"#));
    }
    for i in 0..4 {
        assert!(stuck.publisher.read_text().contains(&format!(r#""body":{i}"#)));
    }
    assert_eq!(stuck.metric("fanfare_ring_entries"), 4.0);
    // The other three quarters are free for everyone else.
    for _ in 0..12 {
        stuck.server.hub.broadcast("x").wait().unwrap();
    }
    assert_eq!(stuck.server.hub.broadcast("x").wait(), Err(PublishError::Overloaded));
    for _ in 0..12 {
        assert_eq!(stuck.publisher.read_text(), "x");
    }
    // With room again, what was held up follows, in order and without an error.
    drop(held);
    for i in 4..6 {
        assert!(stuck.publisher.read_text().contains(&format!(r#""body":{i}"#)));
    }
}

#[test]
fn a_publishing_connection_waits_for_room_and_is_then_told_111() {
    let wait = Duration::from_millis(600);
    let mut stuck = Stuck::start(|config| {
        config.limits.ring_messages = 4;
        config.limits.publish_wait = wait;
        // A paused reader owes no Pong.
        config.heartbeat.interval = Duration::from_millis(200);
        config.heartbeat.timeout = Duration::from_millis(100);
    });
    let held = stuck.hold();
    stuck.publisher.send_text(r#"{"type":"message","body":"first"}"#);
    stuck.publisher.send_text(r#"{"type":"message","body":"second"}"#);
    let asked = Instant::now();
    assert!(stuck.publisher.read_message().contains("first"));
    let expected = r#"{"type":"error","code":111,"message":"too many requests"}"#;
    assert_eq!(stuck.publisher.read_message(), expected);
    assert!(asked.elapsed() >= wait, "{:?}", asked.elapsed());
    assert_eq!(stuck.metric(r#"fanfare_refusals_total{reason="overloaded"}"#), 1.0);
    drop(held);
    stuck.publisher.send_text(r#"{"type":"message","body":"third"}"#);
    assert!(stuck.publisher.read_message().contains("third"));
}

#[test]
fn a_full_ring_refuses_the_api_at_once_and_without_a_trace() {
    for (messages, bytes, free) in [(4, 16 << 20, 0), (16_384, 16 << 10, 1000)] {
        let mut stuck = Stuck::start(|config| {
            config.limits.message_bytes = 1 << 10;
            (config.limits.ring_messages, config.limits.ring_bytes) = (messages, bytes);
        });
        let held = stuck.hold();
        let mut admitted = 0;
        while stuck.server.hub.broadcast("x".repeat(free)).wait().is_ok() {
            admitted += 1;
        }
        let taken = stuck.metric("fanfare_ring_entries");
        assert_eq!(taken, f64::from(admitted));
        let data = format!(r#"{{"data":"{}"}}"#, "x".repeat(free));
        stuck.api.send(post("broadcast_all", API_KEY, &data).as_bytes());
        let (status, answer) = stuck.api.read_answer();
        assert_eq!(status, 503, "{answer}");
        assert_header(&answer, "retry-after: 1");
        assert!(answer.contains(r#""code":111"#), "{answer}");
        let user = format!(r#"{{"user":1,"data":"{}"}}"#, "x".repeat(free));
        stuck.api.send(post("send_to_user", API_KEY, &user).as_bytes());
        assert_eq!(stuck.api.read_answer().0, 503);
        assert_eq!(stuck.metric("fanfare_ring_entries"), taken);
        drop(held);
        wait_until("the ring is empty", || stuck.metric("fanfare_ring_entries") == 0.0);
        stuck.server.hub.broadcast("after").wait().unwrap();
        for _ in 0..admitted {
            assert_eq!(stuck.publisher.read_text().len(), free);
        }
        assert_eq!(stuck.publisher.read_text(), "after");
    }
}

#[test]
fn a_server_with_a_stuck_shard_is_not_ready() {
    let mut stuck = Stuck::start(|_| {});
    let held = stuck.hold();
    stuck.api.send(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(stuck.api.read_answer().0, 503);
    drop(held);
    stuck.api.send(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(stuck.api.read_answer().0, 200);
}

#[test]
fn a_peer_that_does_not_answer_a_close_is_cut_in_time() {
    let server = TestServer::with(|config| {
        config.limits.close_timeout = Duration::from_millis(300);
    });
    let mut peer = server.connect(1);
    server
        .hub
        .disconnect_user(&fanfare::UserId::from(1), fanfare::CloseReason::NORMAL)
        .wait()
        .unwrap();
    assert_eq!(peer.read_close().0, 1000);
    let closed = Instant::now();
    wait_until("its socket is gone", || server.metric("fanfare_sockets") == 1.0);
    let took = closed.elapsed();
    assert!((100..3000).contains(&took.as_millis()), "{took:?}");
}

/// Two shards, of which one can be made to stand still; on the other a chat connection and a
/// connection for HTTP.
struct Stuck {
    publisher: Peer,
    api: Peer,
    blocker: Peer,
    _filler: Peer,
    _embedder: Embedder,
    // The last to be dropped, as its drain waits for the others.
    server: TestServer,
}

impl Stuck {
    fn start(set: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::with(|config| {
            config.server.shards = 2;
            set(config);
        });
        let embedder = Embedder::with(&server.hub, adopt_blocker);
        // A new socket goes to the shard with fewer, or to the first: blocker and filler to that,
        // publisher and api to the other.
        let blocker = embedder.open();
        embedder.outcomes.recv().unwrap().unwrap();
        let publisher = server.connect(1);
        let filler = server.connect(2);
        let mut api = server.dial();
        api.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(api.read_answer().0, 200);
        Self { publisher, api, blocker, server, _filler: filler, _embedder: embedder }
    }

    fn hold(&mut self) -> Held {
        hold(&mut self.blocker)
    }

    fn metric(&mut self, series: &str) -> f64 {
        self.api.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        let (_, answer) = self.api.read_answer();
        let mut values = answer.lines().filter_map(|line| line.strip_prefix(series));
        values.next().map_or(0.0, |value| value.trim().parse().unwrap())
    }
}
