use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::*;

#[test]
fn the_accept_key_is_the_rfcs() {
    // RFC 6455 section 1.3
    let server = TestServer::start();
    let mut peer = server.dial();
    peer.send(handshake("/ws/chat", "").as_bytes());
    let head = peer.read_head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
}

#[test]
fn a_missing_or_malformed_key_is_400() {
    // RFC 6455 section 4.2.1, item 5
    let server = TestServer::start();
    let whole = handshake("/ws/chat", "");
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for other in
        ["", "sec-websocket-key: \r\n", "sec-websocket-key: !\r\n", "sec-websocket-key: dGhl\r\n"]
    {
        let (status, answer) = server.request(&whole.replace(key, other));
        assert_eq!(status, 400, "{answer}");
    }
    assert_eq!(failures(&server, "key"), 4.0);
}

#[test]
fn a_plain_get_is_426_and_learns_the_version() {
    // RFC 6455 section 4.4
    let server = TestServer::start();
    let whole = handshake("/ws/chat", "");
    let plain = "GET /ws/chat HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
    let not_websocket = whole.replace("upgrade: websocket", "upgrade: h2c");
    let not_an_upgrade = whole.replace("connection: Upgrade", "connection: keep-alive");
    for request in [plain, not_websocket, not_an_upgrade] {
        let (status, answer) = server.request(&request);
        assert_eq!(status, 426, "{answer}");
        assert_header(&answer, "sec-websocket-version: 13");
        assert_header(&answer, "upgrade: websocket");
    }
    assert_eq!(failures(&server, "not_an_upgrade"), 3.0);
}

#[test]
fn another_version_is_426_and_learns_the_version() {
    // RFC 6455 section 4.4
    let server = TestServer::start();
    let version = "sec-websocket-version: 13\r\n";
    for other in ["", "sec-websocket-version: 8\r\n", "sec-websocket-version: 13, 8\r\n"] {
        let request = handshake("/ws/chat", "").replace(version, other);
        let (status, answer) = server.request(&request);
        assert_eq!(status, 426, "{answer}");
        assert_header(&answer, "sec-websocket-version: 13");
    }
    assert_eq!(failures(&server, "version"), 3.0);
}

#[test]
fn another_method_is_405_and_learns_which() {
    let server = TestServer::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = handshake("/ws/chat", "content-length: 0\r\n").replacen("GET", method, 1);
        let (status, answer) = server.request(&request);
        assert_eq!(status, 405, "{answer}");
        assert_header(&answer, "allow: GET");
    }
    assert_eq!(failures(&server, "method"), 4.0);
}

#[test]
fn a_header_flood_is_431() {
    let server = TestServer::start();
    let (status, answer) = server.request(&handshake("/ws/chat", &"x-flood: 0\r\n".repeat(2000)));
    assert_eq!(status, 431, "{answer}");
    // A flood that has no end is cut at the limit too, and its answer survives what follows it.
    let mut peer = server.dial();
    peer.send(b"GET /ws/chat HTTP/1.1\r\nx-flood: ");
    peer.send(&vec![b'x'; 4 << 20]);
    assert_eq!(peer.read_answer().0, 431);
    assert!(peer.ends());
    assert_eq!(failures(&server, "malformed"), 2.0);
}

#[test]
fn headers_up_to_the_limit_are_read() {
    let server = TestServer::with(|config| config.limits.header_bytes = 32 << 10);
    let mut peer = server.dial();
    let header = format!("x-long: {}\r\n", "x".repeat(24 << 10));
    peer.send(handshake("/ws/chat", &header).as_bytes());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn what_is_no_http_is_400() {
    let server = TestServer::start();
    let mut peer = server.dial();
    peer.send(b"\x16\x03\x01 hello\r\n\r\n");
    assert_eq!(peer.read_answer().0, 400);
    assert!(peer.ends());
}

#[test]
fn a_token_may_be_in_any_of_three_places() {
    let server = TestServer::start();
    let token = server.token(7);
    let query = format!("/ws/chat?a=b&token={token}");
    let places = [
        ("/ws/chat", format!("authorization: Bearer {token}\r\n")),
        ("/ws/chat", format!("authorization: bearer  {token}\r\n")),
        ("/ws/chat", format!("sec-websocket-protocol: fanfare, {token}\r\n")),
        (
            "/ws/chat",
            format!("sec-websocket-protocol: fanfare\r\nsec-websocket-protocol: {token}\r\n"),
        ),
        (&query, String::new()),
    ];
    for (path, headers) in places {
        let mut peer = server.open_at(path, &headers);
        peer.send_text(r#"{"type":"ping"}"#);
        assert_eq!(peer.read_text(), r#"{"type":"pong"}"#, "{path} {headers}");
    }
}

#[test]
fn the_answer_picks_our_subprotocol_and_never_the_token() {
    // RFC 6455 section 4.2.2, item 5: only what the client offered may be picked
    let server = TestServer::start();
    let token = server.token(7);
    let picks = |offer: &str| {
        let mut peer = server.dial();
        peer.send(handshake("/ws/chat", offer).as_bytes());
        let head = peer.read_head().to_ascii_lowercase();
        head.lines()
            .find_map(|line| line.strip_prefix("sec-websocket-protocol: ").map(str::to_owned))
    };
    let offer = format!("sec-websocket-protocol: fanfare, {token}\r\n");
    assert_eq!(picks(&offer).as_deref(), Some("fanfare"));
    assert_eq!(picks(&format!("authorization: Bearer {token}\r\n")), None);
    assert_eq!(picks("sec-websocket-protocol: chat\r\n"), None);
}

#[test]
fn frames_behind_the_handshake_are_not_lost() {
    let server = TestServer::start();
    let path = format!("/ws/chat?token={}", server.token(7));
    let ping = frame(FIN | TEXT, br#"{"type":"ping"}"#);
    let mut peer = server.dial();
    peer.send(&[handshake(&path, "").as_bytes(), &ping.repeat(3), &ping[..5]].concat());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    peer.send(&ping[5..]);
    for _ in 0..4 {
        assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    }
}

#[test]
fn half_a_request_then_silence_is_408() {
    let server = hasty();
    for half in ["GET /ws/ch", "GET /ws/chat HTTP/1.1\r\nhost: x\r\n"] {
        let mut peer = server.dial();
        peer.send(half.as_bytes());
        assert_eq!(peer.read_answer().0, 408);
        assert!(peer.ends());
    }
    let mut peer = server.dial();
    peer.send(&post("info", API_KEY, "{}").as_bytes()[..60]);
    assert_eq!(peer.read_answer().0, 408);
    assert_eq!(failures(&server, "timeout"), 3.0);
}

#[test]
fn half_an_api_body_then_silence_is_408() {
    let server = hasty();
    let request = post("info", API_KEY, "{          }");
    let mut peer = server.dial();
    peer.send(&request.as_bytes()[..request.len() - 5]);
    assert_eq!(peer.read_answer().0, 408);
    assert!(peer.ends());
}

#[test]
fn silence_from_the_start_is_408() {
    let server = hasty();
    let mut peer = server.dial();
    assert_eq!(peer.read_answer().0, 408);
    assert!(peer.ends());
}

#[test]
fn a_request_that_trickles_in_is_408() {
    let server = hasty();
    let started = Instant::now();
    let mut peer = server.dial();
    let mut trickle = peer.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for byte in handshake("/ws/chat", "").bytes() {
            // A peer that writes so slowly is what is tested.
            std::thread::sleep(Duration::from_millis(20));
            if trickle.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    assert_eq!(peer.read_answer().0, 408);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    writer.join().unwrap();
}

/// A server with little patience for requests.
fn hasty() -> TestServer {
    TestServer::with(|config| {
        config.limits.handshake_timeout = Duration::from_millis(200);
        config.limits.close_timeout = Duration::from_millis(200);
    })
}

fn failures(server: &TestServer, reason: &str) -> f64 {
    server.metric(&format!(r#"fanfare_handshake_failures_total{{reason="{reason}"}}"#))
}

/// RFC 9112 section 3.2.
#[test]
fn a_request_without_a_host_is_400() {
    let server = TestServer::start();
    assert_eq!(server.request("GET /health HTTP/1.1\r\n\r\n").0, 400);
}

/// RFC 6455 section 11.3.1.
#[test]
fn a_second_key_is_400() {
    let server = TestServer::start();
    let twice = handshake("/ws/chat", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    assert_eq!(server.request(&twice).0, 400);
}

#[test]
fn a_peer_that_ends_its_side_behind_its_request_is_answered() {
    let server = TestServer::start();
    let mut peer = server.dial();
    peer.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    peer.shut_down_writing();
    assert_eq!(peer.read_answer().0, 200);
}
