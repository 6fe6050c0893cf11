use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanfare::UserId;

use crate::support::*;

#[test]
fn a_consumer_too_many_bytes_behind_finds_close_3008_when_it_reads_again() {
    let server = TestServer::with(|config| {
        config.limits.message_bytes = 16 << 10;
        config.limits.outbox_bytes = 128 << 10;
        config.limits.outbox_age = Duration::from_secs(60 * 60);
    });
    let mut stalled = stalled(&server, 1);
    let fast = server.connect(2);
    let sent = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_in_order(fast));
        let mut sent = 0;
        while server.hub.user_connections(&UserId::from(1)) > 0 {
            broadcast(&server, sent);
            sent += 1;
            assert!(sent < 1000, "16 MiB wait for a peer that may be 128 KiB behind");
            // No faster than the other reads, which is not to be evicted too.
            wait_until("it is delivered", || server.metric("fanfare_ring_entries") == 0.0);
        }
        server.hub.broadcast("end").wait().unwrap();
        assert_eq!(reader.join().unwrap(), sent);
        sent
    });
    assert!(sent >= 8, "evicted after {sent} messages");
    let mut read = 0;
    let close = loop {
        let frame = stalled.read_frame();
        if frame.opcode == CLOSE {
            break frame.close();
        }
        assert!(frame.text().starts_with(&format!("{read} ")));
        read += 1;
    };
    assert_eq!(close, (3008, "slow".into()));
    assert!(stalled.ends());
    assert!(read < sent, "it was told of all {sent}");
    assert!(server.metric("fanfare_dropped_total") > 0.0);
    assert_eq!(server.metric(r#"fanfare_closes_total{code="3008"}"#), 1.0);
}

#[test]
fn a_consumer_too_long_behind_finds_close_3008_when_it_reads_again() {
    let server = TestServer::with(|config| {
        config.limits.outbox_bytes = 64 << 20;
        config.limits.outbox_age = Duration::from_millis(300);
    });
    let mut stalled = stalled(&server, 1);
    let fast = server.connect(2);
    let reader = std::thread::spawn(move || read_in_order(fast));
    for i in 0..100 {
        broadcast(&server, i);
    }
    let waits = Instant::now();
    wait_until("it is evicted", || server.hub.user_connections(&UserId::from(1)) == 0);
    assert!(waits.elapsed() > Duration::from_millis(200), "{:?}", waits.elapsed());
    server.hub.broadcast("end").wait().unwrap();
    assert_eq!(reader.join().unwrap(), 100);
    assert_eq!(stalled.skip_to_close(), (3008, "slow".into()));
    assert!(stalled.ends());
}

#[test]
fn a_consumer_that_never_reads_again_is_cut() {
    let server = TestServer::with(|config| {
        config.limits.outbox_age = Duration::from_millis(200);
        config.limits.close_timeout = Duration::from_millis(200);
    });
    let mut stalled = stalled(&server, 1);
    for i in 0..30 {
        broadcast(&server, i);
    }
    // The socket that asks is the one that is left.
    wait_until("its socket is gone", || server.metric("fanfare_sockets") == 1.0);
    wait_until("nothing is held for it", || server.metric("fanfare_outbox_bytes") == 0.0);
    assert!(stalled.is_cut());
}

#[test]
fn over_the_memory_limit_the_largest_laggard_goes_first() {
    let server = TestServer::with(|config| {
        config.limits.ring_bytes = 512 << 10;
        config.limits.memory = 1536 << 10;
        config.limits.outbox_bytes = 1 << 20;
    });
    let (_small, _large) = (stalled(&server, 1), stalled(&server, 2));
    let held = || server.metric("fanfare_outbox_bytes") as usize;
    let burden = |user| {
        server.hub.send_to_user(&UserId::from(user), "x".repeat(32 << 10)).wait().unwrap();
        wait_until("it is queued", || server.metric("fanfare_ring_entries") == 0.0);
    };
    while held() < 256 << 10 {
        burden(1);
    }
    let mut most = 0;
    while server.hub.connections() == 2 {
        burden(2);
        most = most.max(held());
    }
    assert_eq!(server.hub.user_connections(&UserId::from(1)), 1);
    assert_eq!(server.hub.user_connections(&UserId::from(2)), 0);
    assert!((900 << 10..=1 << 20).contains(&most), "{most}");
}

#[test]
fn pongs_that_nobody_reads_take_bounded_memory_and_delay_no_one() {
    let server = TestServer::with(|config| {
        config.limits.outbox_age = Duration::from_secs(1);
        config.limits.close_timeout = Duration::from_millis(200);
    });
    let mut flooder = stalled(&server, 1);
    let mut other = server.connect(2);
    let pings = frame(FIN | PING, &[7; 125]).repeat(1000);
    let mut sender = flooder.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || while sender.write_all(&pings).is_ok() {});
    let mut most = 0.0_f64;
    while server.hub.connections() == 2 {
        let asked = Instant::now();
        other.send_text(r#"{"type":"ping"}"#);
        assert_eq!(other.read_text(), r#"{"type":"pong"}"#);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        most = most.max(server.metric("fanfare_outbox_bytes"));
    }
    assert!(most < 64.0 * 1024.0, "{most} bytes of pongs");
    assert_eq!(server.metric(r#"fanfare_closes_total{code="3008"}"#), 1.0);
    wait_until("its socket is gone", || server.metric("fanfare_sockets") == 2.0);
    assert!(flooder.is_cut());
    flood.join().unwrap();
}

/// A chat connection that takes little and reads none of it.
fn stalled(server: &TestServer, user: i32) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut peer = Peer::new(TcpStream::from(socket));
    let path = format!("/ws/chat?token={}", server.token(user));
    peer.send(handshake(&path, "").as_bytes());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    let user = UserId::from(user);
    wait_until("it is connected", || server.hub.user_connections(&user) == 1);
    peer
}

/// 16 KiB that begin with a number.
fn broadcast(server: &TestServer, number: usize) {
    let text = format!("{number} {}", "x".repeat(16 << 10));
    server.hub.broadcast(text[..16 << 10].to_owned()).wait().unwrap();
}

/// Reads numbered broadcasts up to the one that says `end`; returns how many came.
fn read_in_order(mut peer: Peer) -> usize {
    for expected in 0.. {
        let text = peer.read_text();
        if text == "end" {
            return expected;
        }
        assert!(text.starts_with(&format!("{expected} ")), "{}", &text[..8]);
    }
    unreachable!("a range without an end");
}

#[test]
fn messages_in_the_making_count_against_the_memory_limit() {
    let server = TestServer::with(|config| {
        config.limits.ring_bytes = 512 << 10;
        config.limits.memory = 1536 << 10;
    });
    let mut peers: Vec<_> = (0..20).map(|user| server.connect(user)).collect();
    for peer in &mut peers {
        peer.send(&header(FIN | BINARY, 64 << 10));
        peer.send(&[b'x'; 60 << 10]);
    }
    // 17 times 60 KiB fit.
    wait_until("three are closed", || server.hub.connections() <= 17);
    assert_eq!(server.hub.connections(), 17);
}

#[test]
fn a_connection_at_rest_holds_nothing_whatever_it_sent() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    // Far more frames than one turn takes, in one piece.
    let mut flood = frame(FIN | PONG, b"").repeat(10_000);
    flood.extend(frame(FIN | TEXT, br#"{"type":"ping"}"#));
    peer.send(&flood);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    // A probe through the pump has the gauge written anew.
    assert_eq!(server.request("GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").0, 200);
    assert_eq!(server.metric("fanfare_outbox_bytes"), 0.0);
}

#[test]
fn no_healthy_peer_goes_for_the_many_that_are_evicted() {
    let server = TestServer::with(|config| {
        config.limits.outbox_bytes = 256 << 10;
        config.limits.ring_bytes = 512 << 10;
        config.limits.memory = 2 << 20;
    });
    let _stalled: Vec<_> = (0..200).map(|user| stalled(&server, user)).collect();
    let mut healthy: Vec<_> = (0..5).map(|_| server.connect(1000)).collect();
    let message = "x".repeat(60_000);
    let mut sent = 0;
    while server.hub.connections() > healthy.len() {
        server.hub.broadcast(message.as_str()).wait().unwrap();
        healthy.iter_mut().for_each(|peer| assert_eq!(peer.read_text(), message));
        sent += 1;
        assert!(sent < 1000, "they are never evicted");
    }
    assert_eq!(server.hub.user_connections(&UserId::from(1000)), 5);
}
