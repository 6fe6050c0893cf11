use std::time::{Duration, Instant};

use crate::support::*;

#[test]
fn a_quiet_connection_is_pinged_and_a_pong_keeps_it() {
    let server = impatient();
    let mut peer = server.connect(1);
    for _ in 0..3 {
        let ping = peer.read_frame();
        assert_eq!(ping.opcode, PING);
        peer.send(&frame(FIN | PONG, &ping.payload));
    }
    assert_eq!(server.hub.connections(), 1);
}

#[test]
fn without_a_sign_of_life_a_peer_is_closed() {
    let server = impatient();
    let mut peer = server.connect(1);
    assert_eq!(peer.read_frame().opcode, PING);
    let pinged = Instant::now();
    let close = peer.skip_to_close();
    assert_eq!(close, (3012, "no pong".into()));
    assert!(peer.ends());
    assert!(pinged.elapsed() >= TIMEOUT, "{:?}", pinged.elapsed());
    assert_eq!(server.hub.connections(), 0);
    assert_eq!(server.metric(r#"fanfare_closes_total{code="3012"}"#), 1.0);
}

#[test]
fn a_ping_unanswered_counts_though_more_follow() {
    let server = TestServer::with(|config| {
        config.heartbeat.interval = Duration::from_millis(150);
        config.heartbeat.timeout = Duration::from_millis(300);
    });
    let mut peer = server.connect(1);
    assert_eq!(peer.skip_to_close(), (3012, "no pong".into()));
}

#[test]
fn any_frame_is_a_sign_of_life() {
    let server = impatient();
    let signs = [
        frame(FIN | TEXT, br#"{"type":"message"}"#),
        frame(FIN | BINARY, b""),
        frame(FIN | PING, b""),
        [frame(TEXT, b"{"), frame(FIN | CONTINUATION, b"}")].concat(),
    ];
    for sign in signs {
        let mut peer = server.connect(1);
        for _ in 0..3 {
            while peer.read_frame().opcode != PING {}
            peer.send(&sign);
        }
        assert_eq!(server.hub.connections(), 1);
    }
}

#[test]
fn a_message_in_the_making_is_a_sign_of_life() {
    let server = impatient();
    let mut peer = server.connect(1);
    peer.send(&frame(TEXT, b"{"));
    for _ in 0..3 {
        assert_eq!(peer.read_frame().opcode, PING);
        peer.send(&frame(CONTINUATION, b" "));
    }
    assert_eq!(server.hub.connections(), 1);
}

fn impatient() -> TestServer {
    TestServer::with(|config| {
        config.heartbeat.interval = Duration::from_millis(400);
        config.heartbeat.timeout = TIMEOUT;
    })
}

const TIMEOUT: Duration = Duration::from_millis(200);
