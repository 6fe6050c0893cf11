use std::time::{Duration, Instant};

use fanfare::PublishError;

use crate::support::*;

#[test]
fn everyone_is_told_to_come_back_spread_over_time() {
    let mut server = TestServer::with(|config| {
        config.server.shards = 2;
        config.drain.spread = Duration::from_millis(600);
    });
    let peers: Vec<_> = (0..40).map(|user| server.connect(user)).collect();
    server.shut_down();
    let readers: Vec<_> = peers
        .into_iter()
        .map(|mut peer| {
            std::thread::spawn(move || {
                assert_eq!(peer.read_close(), (3001, "shutdown".into()));
                Instant::now()
            })
        })
        .collect();
    let mut told: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    told.sort();
    let spread = told[39] - told[0];
    assert!((250..3000).contains(&spread.as_millis()), "{spread:?}");
    server.join();
}

#[test]
fn a_few_are_spread_as_many_are() {
    let mut server = TestServer::with(|config| config.drain.spread = Duration::from_secs(2));
    let mut peers = [server.connect(1), server.connect(2)];
    let begun = Instant::now();
    server.shut_down();
    peers.iter_mut().for_each(|peer| assert_eq!(peer.skip_to_close().0, 3001));
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    server.join();
}

#[test]
fn what_waits_for_a_peer_comes_before_the_close() {
    all_come_before_the_close(4000, |server| {
        wait_until("all of it waits", || server.metric("fanfare_deliveries_total") == 201.0);
    });
}

#[test]
fn what_was_published_before_comes_before_the_close() {
    all_come_before_the_close(1000, |_| {});
}

/// Publishes, lets `meanwhile` pass and drains: its peer reads everything and then 3001.
fn all_come_before_the_close(bytes: usize, meanwhile: impl FnOnce(&TestServer)) {
    let mut server = TestServer::start();
    let mut peer = server.connect(1);
    for i in 0..200 {
        server.hub.broadcast(format!("{i} {}", "x".repeat(bytes))).wait().unwrap();
    }
    meanwhile(&server);
    server.shut_down();
    for i in 0..200 {
        assert!(peer.read_text().starts_with(&format!("{i} ")));
    }
    assert_eq!(peer.read_close(), (3001, "shutdown".into()));
    drop(peer);
    server.join();
}

#[test]
fn while_it_drains_nothing_is_ready_and_publishes_are_refused() {
    let mut server = TestServer::with(|config| {
        config.drain.spread = Duration::from_secs(1);
        config.drain.timeout = Duration::from_secs(5);
    });
    // Requests begun before the drain are answered in it.
    let ready = "GET /ready HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
    let publish = post("broadcast_all", API_KEY, r#"{"data":1}"#);
    let mut askers = [(server.dial(), ready), (server.dial(), publish)];
    for (peer, request) in &mut askers {
        peer.send(&request.as_bytes()[..10]);
    }
    wait_until("the requests have begun", || server.metric("fanfare_sockets") == 3.0);
    let mut idle = server.dial();
    idle.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(idle.read_answer().0, 200);
    server.shut_down();
    wait_until("it drains", || server.hub.broadcast("x").wait() == Err(PublishError::Closed));
    assert!(idle.ends(), "an idle connection is let go");
    for (peer, request) in &mut askers {
        peer.send(&request.as_bytes()[10..]);
        let (status, answer) = peer.read_answer();
        assert_eq!(status, 503, "{answer}");
        if request.starts_with("POST") {
            assert_header(&answer, "retry-after: 1");
            assert!(answer.contains(r#""code":100"#), "{answer}");
        }
        assert!(peer.ends());
    }
    assert!(std::net::TcpStream::connect(server.address).is_err(), "nobody new is accepted");
    drop((askers, idle));
    server.join();
}

#[test]
fn a_drain_ends_as_soon_as_everyone_has_gone() {
    let mut server = TestServer::with(|config| config.drain.timeout = Duration::from_secs(60));
    let mut peers: Vec<_> = (0..10).map(|user| server.connect(user)).collect();
    server.shut_down();
    let begun = Instant::now();
    for peer in &mut peers {
        assert_eq!(peer.read_close().0, 3001);
        peer.send(&frame(FIN | CLOSE, b"\x0b\xb9"));
    }
    drop(peers);
    server.join();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_drain_ends_in_time_though_a_peer_never_answers() {
    let mut server = TestServer::with(|config| {
        config.drain.timeout = Duration::from_millis(300);
        config.limits.close_timeout = Duration::from_secs(60);
    });
    let mut silent = server.connect(1);
    let _half_a_request = server.dial();
    server.shut_down();
    let begun = Instant::now();
    server.join();
    let took = begun.elapsed();
    assert!((200..3000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(silent.skip_to_close().0, 3001);
}

#[test]
fn half_a_request_does_not_hold_up_a_drain() {
    let mut server = TestServer::with(|config| {
        config.limits.close_timeout = Duration::from_millis(400);
        config.drain.timeout = Duration::from_secs(20);
    });
    let mut halves =
        ["GET /health", "POST /api/info HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"].map(
            |half| {
                let mut peer = server.dial();
                peer.send(half.as_bytes());
                peer
            },
        );
    server.request("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    let began = Instant::now();
    server.shut_down();
    for peer in &mut halves {
        assert!(peer.read_head().starts_with("HTTP/1.1 4"));
    }
    server.join();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
