use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::peer::{CLOSE, FIN, PING, PONG, Peer, TEXT, frame, handshake, wait_until};
use crate::process::{API_KEY, Serving, fanfare};

#[test]
fn dev_prints_an_address_a_token_and_lines_that_work() {
    let mut command = fanfare(&["dev", "--bind", "127.0.0.1:0", "--shards", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("/info") {
        assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let line_with = |part: &str| text.lines().find(|line| line.contains(part)).unwrap().trim();
    let page = line_with("open it in").split(' ').find(|word| word.starts_with("http")).unwrap();
    let (_, socket) = line_with("ws://").split_once("ws://").unwrap();
    let (address, path) = socket.split_once('/').unwrap();
    let mut peer = Peer::new(std::net::TcpStream::connect(address).unwrap());
    peer.send(handshake(&format!("/{path}"), "").as_bytes());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    assert!(peer.read_text().starts_with(r#"{"type":"user_joined","user_id":42,"name":"Ada""#));

    let shell = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(shell(&format!("curl -s {page}")).contains("<html"));
    assert_eq!(shell(line_with("/broadcast_all")), r#"{"result":{"connections":1}}"#);
    assert_eq!(peer.read_text(), r#"{"type":"notification","text":"hello, all"}"#);
    assert_eq!(shell(line_with("/send_to_user")), r#"{"result":{"connections":1}}"#);
    assert_eq!(peer.read_text(), r#"{"type":"notification","text":"hello, 42"}"#);
    assert!(shell(line_with("/info")).contains(r#""num_clients":1"#));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn start_says_when_the_api_is_off() {
    let mut command = fanfare(&["serve"]);
    let mut server = Serving::spawn(&mut command);
    server.signal(Signal::TERM);
    let mut with_key = String::new();
    server.stderr.read_to_string(&mut with_key).unwrap();
    assert!(!with_key.contains("api is off"), "{with_key}");
    let mut command = fanfare(&["serve", "--bind", "127.0.0.1:0"]);
    command.env("FANFARE_AUTH_HMAC_SECRET", crate::process::SECRET);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find(|line| line.contains("api is off"));
    assert!(said.is_some_and(|line| line.contains("FANFARE_API_KEY")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_signal_drains_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Serving::start(&[("FANFARE_DRAIN_SPREAD", "100ms")]);
        let mut peers: Vec<_> = (0..3).map(|user| server.connect(user)).collect();
        server.signal(signal);
        for peer in &mut peers {
            assert_eq!(peer.skip_to_close(), (3001, "shutdown".into()));
            assert!(peer.ends());
        }
        drop(peers);
        assert_eq!(server.end().0, 0);
    }
}

#[test]
fn a_drain_ends_in_time_whoever_stays() {
    let server = Serving::start(&[
        ("FANFARE_DRAIN_SPREAD", "0s"),
        ("FANFARE_DRAIN_TIMEOUT", "500ms"),
        ("FANFARE_LIMITS_CLOSE_TIMEOUT", "1m"),
    ]);
    let _stays = server.connect(1);
    let signalled = Instant::now();
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, 0);
    assert!(log.contains("drain.timeout"), "{log}");
    let took = signalled.elapsed();
    assert!((500..5000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_second_signal_ends_at_once_with_1() {
    let mut server = Serving::start(&[("FANFARE_LIMITS_CLOSE_TIMEOUT", "1m")]);
    let _stays = server.connect(1);
    server.signal(Signal::TERM);
    let mut line = String::new();
    while !line.contains("draining") {
        assert!(server.stderr.read_line(&mut line).unwrap() > 0);
    }
    let signalled = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.end().0, 1);
    assert!(signalled.elapsed() < Duration::from_secs(2), "{:?}", signalled.elapsed());
}

#[test]
fn a_stopped_and_continued_server_evicts_no_healthy_peer() {
    stop_and_continue(Duration::from_secs(4), "500ms");
}

#[test]
#[ignore = "takes half a minute"]
fn a_server_stopped_for_half_a_minute_evicts_no_healthy_peer() {
    stop_and_continue(Duration::from_secs(30), "10s");
}

/// Stops a server for several of its deadlines, while its peers have pings to answer, messages
/// half sent and broadcasts to come.
fn stop_and_continue(pause: Duration, deadline: &str) {
    let server = Serving::start(&[
        ("FANFARE_CHAT_ANNOUNCE", "off"),
        ("FANFARE_HEARTBEAT_INTERVAL", "600ms"),
        ("FANFARE_HEARTBEAT_TIMEOUT", deadline),
        ("FANFARE_LIMITS_OUTBOX_AGE", deadline),
        ("FANFARE_LIMITS_MESSAGE_TIMEOUT", deadline),
    ]);
    let mut peers: Vec<_> = (0..20).map(|user| server.connect(user)).collect();
    let message = frame(FIN | TEXT, br#"{"type":"message"}"#);
    let (first, last) = message.split_at(9);
    for peer in &mut peers {
        // Each owes a Pong when the server stops.
        assert_eq!(peer.read_frame().opcode, PING);
    }
    for peer in &mut peers {
        peer.send(&frame(FIN | PONG, b""));
        peer.send(first);
    }
    server.signal(Signal::STOP);
    std::thread::sleep(pause);
    server.signal(Signal::CONT);
    std::thread::scope(|scope| {
        for peer in &mut peers {
            scope.spawn(|| {
                peer.send(last);
                stays(peer);
            });
        }
    });
}

/// Everybody's message reaches this peer, and pings go on.
fn stays(peer: &mut Peer) {
    let (mut messages, mut pings) = (0, 0);
    while messages < 20 || pings < 2 {
        let came = peer.read_frame();
        match came.opcode {
            PING => {
                pings += 1;
                peer.send(&frame(FIN | PONG, b""));
            }
            CLOSE => panic!("closed: {:?}", came.close()),
            _ => messages += 1,
        }
    }
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let server = Serving::start(&[("FANFARE_LOG_FILTER", "trace")]);
    let (mut ada, mut grace) = (server.connect(1), server.connect(2));
    // Each refusal logs a line; the pipe holds 64 KiB and the queue behind it 8192 lines.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2500 {
                    let mut refused = server.dial();
                    refused.send(handshake("/ws/chat", "").as_bytes());
                    assert!(refused.stream.read(&mut [0; 512]).unwrap() > 0);
                }
            });
        }
    });
    ada.send_text(r#"{"type":"message","body":"still here"}"#);
    while !grace.read_frame().text().contains("still here") {}
    server.signal(Signal::TERM);
    assert_eq!(grace.skip_to_close().0, 3001);
    assert_eq!(ada.skip_to_close().0, 3001);
}

#[test]
fn out_of_descriptors_it_backs_off_and_recovers() {
    let serve = format!("ulimit -n 80 && exec {} serve", env!("CARGO_BIN_EXE_fanfare"));
    let mut command = Command::new("sh");
    command.args(["-c", &serve]).env_clear().env("FANFARE_LIMITS_CONNECTIONS", "1000");
    let server = Serving::spawn(&mut command);
    let mut healthy = server.connect(1);
    let flood: Vec<_> = (0..150).map(|_| server.dial()).collect();
    // Whoever is in goes on while others wait at the door.
    healthy.send_text(r#"{"type":"ping"}"#);
    while !healthy.read_frame().text().contains("pong") {}
    drop(flood);
    let late = server.connect(2);
    while !healthy.read_frame().text().contains(r#""user_joined","user_id":2"#) {}
    server.signal(Signal::TERM);
    drop((healthy, late));
    let (code, log) = server.end();
    assert_eq!(code, 0);
    assert!(log.contains("cannot accept"), "{log}");
}

#[test]
fn by_default_the_descriptor_limit_less_64_bounds_connections() {
    let serve = format!("ulimit -Sn 70 && exec {} serve", env!("CARGO_BIN_EXE_fanfare"));
    let mut command = Command::new("sh");
    let server = Serving::spawn(command.args(["-c", &serve]).env_clear());
    // The soft limit was raised to the hard one, so that more than six fit.
    let peers: Vec<_> = (0..20).map(|user| server.connect(user)).collect();
    drop((peers, server));

    let serve = format!("ulimit -n 70 && exec {} serve", env!("CARGO_BIN_EXE_fanfare"));
    let mut command = Command::new("sh");
    let server = Serving::spawn(command.args(["-c", &serve]).env_clear());
    let peers: Vec<_> = (0..6).map(|user| server.connect(user)).collect();
    let request = format!(
        "POST /api/info HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\ncontent-length: 0\r\n\r\n"
    );
    let mut seventh = server.dial();
    seventh.send(request.as_bytes());
    assert_eq!(seventh.read_answer().0, 503);
    drop(peers);
    wait_until("there is room again", || {
        let mut peer = server.dial();
        peer.send(request.as_bytes());
        peer.read_answer().0 == 200
    });
}
