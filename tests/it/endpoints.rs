use crate::support::*;

#[test]
fn a_living_server_is_healthy_and_ready() {
    let server = TestServer::with(|config| config.server.shards = 2);
    for path in ["/health", "/ready"] {
        let (status, answer) = server.request(&get(path));
        assert_eq!(status, 200, "{path}: {answer}");
    }
}

#[test]
fn readiness_is_asked_by_many_at_once() {
    let server = TestServer::with(|config| config.limits.ring_messages = 4);
    let mut askers: Vec<_> = (0..32).map(|_| server.dial()).collect();
    for asker in &mut askers {
        asker.send(get("/ready").as_bytes());
    }
    for asker in &mut askers {
        assert_eq!(asker.read_answer().0, 200);
    }
}

#[test]
fn head_is_answered_without_a_body() {
    let server = TestServer::start();
    let mut peer = server.dial();
    for path in ["/health", "/ready", "/metrics"] {
        peer.send(get(path).replacen("GET", "HEAD", 1).as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    }
}

#[test]
fn another_verb_is_405_and_learns_which() {
    let server = TestServer::start();
    for path in ["/health", "/ready", "/metrics"] {
        let request = get(path).replacen("GET", "DELETE", 1);
        let (status, answer) = server.request(&request);
        assert_eq!(status, 405, "{path}");
        assert_header(&answer, "allow: GET, HEAD");
    }
}

#[test]
fn the_page_is_for_development_alone() {
    assert_eq!(TestServer::start().request(&get("/")).0, 404);
    let server = TestServer::with(|config| config.server.dev = true);
    let (status, answer) = server.request(&get("/"));
    assert_eq!(status, 200);
    assert!(answer.contains("<html"), "{answer}");
    assert!(!answer.contains(SECRET) && !answer.contains(API_KEY));
}

#[test]
fn metrics_are_prometheus_text_and_move() {
    let server = TestServer::start();
    let (status, answer) = server.request(&get("/metrics"));
    assert_eq!(status, 200);
    assert_header(&answer, "content-type: text/plain; version=0.0.4; charset=utf-8");
    let mut peers = [server.connect(1), server.connect(1), server.connect(2)];
    server.hub.broadcast("to all").wait().unwrap();
    server.api("send_to_user", r#"{"user":1,"data":1}"#);
    server.api("disconnect", r#"{"user":2}"#);
    assert_eq!(peers[2].skip_to_close().0, 3503);
    peers[0].send_text("no json");
    while !peers[0].read_text().contains("error") {}
    server.open_at("/ws/chat", "").read_close();
    server.api("broadcast_all", &format!(r#"{{"data":"{}"}}"#, "x".repeat(64 << 10)));

    for (series, value) in [
        ("fanfare_connections", 2.0),
        ("fanfare_users", 1.0),
        ("fanfare_users_present", 1.0),
        (r#"fanfare_publishes_total{kind="broadcast"}"#, 1.0),
        (r#"fanfare_publishes_total{kind="unicast"}"#, 1.0),
        (r#"fanfare_publishes_total{kind="disconnect"}"#, 1.0),
        // Three pongs, a broadcast to three, a unicast to two, one error.
        ("fanfare_deliveries_total", 9.0),
        ("fanfare_received_total", 4.0),
        (r#"fanfare_closes_total{code="3503"}"#, 1.0),
        (r#"fanfare_refusals_total{reason="too_large"}"#, 1.0),
        (r#"fanfare_refusals_total{reason="overloaded"}"#, 0.0),
        (r#"fanfare_handshake_failures_total{reason="missing"}"#, 1.0),
        ("fanfare_ring_entries", 0.0),
        ("fanfare_ring_bytes", 0.0),
        ("fanfare_dropped_total", 0.0),
        ("fanfare_stale_total", 0.0),
        ("fanfare_outbox_bytes", 0.0),
    ] {
        wait_until(series, || server.metric(series) == value);
    }
    for series in ["sockets", "writes_total", "written_bytes_total", "lag_seconds_count"] {
        assert!(server.metric(&format!("fanfare_{series}")) > 0.0, "{series}");
    }
    let bytes = server.metric("fanfare_written_bytes_total");
    server.hub.broadcast("x".repeat(1000)).wait().unwrap();
    while !peers[0].read_text().starts_with('x') {}
    assert!(server.metric("fanfare_written_bytes_total") >= bytes + 1004.0);
}

#[test]
fn every_metric_has_a_help_line_a_type_and_a_row_in_the_documentation() {
    let documentation = include_str!("../../docs/protocol.md");
    let server = TestServer::start();
    let (_, answer) = server.request(&get("/metrics"));
    let (_, text) = answer.split_once("\r\n\r\n").unwrap();
    for series in text.lines().filter(|line| line.starts_with("fanfare_")) {
        let name = series.split(['{', ' ']).next().unwrap();
        let bare = ["_total", "_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let has =
            |what: &str| [name, bare].iter().any(|n| text.contains(&format!("# {what} {n} ")));
        assert!(has("HELP") && has("TYPE"), "{series}");
        let is_documented = [name, bare].iter().any(|n| {
            let n = n.trim_start_matches("fanfare_");
            documentation.contains(&format!("`{n}`")) || documentation.contains(&format!("`{n}{{"))
        });
        assert!(is_documented, "{series}");
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}
