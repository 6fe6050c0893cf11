use std::net::TcpListener;
use std::time::{Duration, Instant};

use fanfare::CloseReason;
use fanfare::config::HookCall::{Publish, Rpc, Subscribe};
use fanfare::config::{OnFailure, Secret};
use serde_json::json;

use super::receiver::*;
use crate::embedder::{Embedder, adopt_blocker, hold};

#[test]
fn without_an_answer_in_time_the_policy_decides() {
    for (on_failure, is_refused) in [(OnFailure::Refuse, true), (OnFailure::Allow, false)] {
        let app = Receiver::start(|_| Reply::Never);
        let server = server(app.address, &[Publish, Subscribe, Rpc], |config| {
            config.hook.timeout = Duration::from_millis(100);
            config.hook.on_failure = on_failure;
        });
        let mut client = server.client(42);
        let reply = client.ask("subscribe", &json!({"channel": "open:a"}));
        let error = json!({"code": 100, "message": "internal server error", "temporary": true});
        assert_eq!(reply.get("error"), is_refused.then_some(&error), "{reply}");
        assert_eq!(client.refusal("rpc", &json!({"method": "x"})), 100);
        let mut ada = server.connect(42);
        ada.send_text(r#"{"type":"message","body":"hi"}"#);
        let said = ada.read_message();
        assert_eq!(said.contains(r#""error","code":100"#), is_refused, "{said}");
        assert_eq!(server.metric("fanfare_hook_failures_total{reason=\"timeout\"}"), 3.0);
    }
}

#[test]
fn an_answer_that_is_none_counts_as_a_failure_of_its_kind() {
    let app = Receiver::start(|post| match post["method"].as_str() {
        Some("status") => Reply::Status(500),
        Some("moved") => Reply::Status(302),
        Some("html") => Reply::Text("<html>"),
        Some("array") => Reply::Text("[]"),
        Some("code") => Reply::Json(json!({"disconnect": {"code": 1002}})),
        Some("zero") => error(0, "x"),
        _ => Reply::Json(json!({"result": {"user": {}}})),
    });
    let server = server(app.address, &[Rpc], |_| {});
    let mut client = server.client(42);
    for method in ["status", "moved", "html", "array", "code", "zero", "user"] {
        assert_eq!(client.refusal("rpc", &json!({"method": method})), 100, "{method}");
    }
    assert_eq!(server.metric("fanfare_hook_failures_total{reason=\"status\"}"), 2.0);
    assert_eq!(server.metric("fanfare_hook_failures_total{reason=\"answer\"}"), 5.0);
}

#[test]
fn a_dead_application_is_a_failure_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = server(address, &[Rpc], |_| {});
    let began = Instant::now();
    assert_eq!(server.client(42).refusal("rpc", &json!({"method": "x"})), 100);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(server.metric("fanfare_hook_failures_total{reason=\"unreachable\"}"), 1.0);
}

#[test]
fn another_secret_is_a_failure() {
    let app = Receiver::agreeing();
    let server = server(app.address, &[Rpc], |config| {
        config.hook.secret = Some(Secret::new("another secret of hooks"));
    });
    assert_eq!(server.client(42).refusal("rpc", &json!({"method": "x"})), 100);
    assert_eq!(server.metric("fanfare_hook_failures_total{reason=\"status\"}"), 1.0);
    assert!(app.posts().is_empty());
}

#[test]
fn a_slow_application_holds_up_only_whom_it_is_asked_about() {
    let app = Receiver::start(|post| if post["call"] == "rpc" { Reply::Never } else { yes() });
    let server = server(app.address, &[Rpc, Publish], |config| {
        config.hook.timeout = Duration::from_secs(60);
        config.heartbeat.interval = Duration::from_millis(100);
        config.heartbeat.timeout = Duration::from_millis(300);
    });
    let mut held = server.client(41);
    held.subscribe("open:a");
    send(&mut held, "rpc", &json!({"method": "x"}));
    assert_eq!(app.post()["call"], "rpc");
    let mut client = server.client(42);
    client.subscribe("open:a");
    let began = Instant::now();
    for n in 0..300 {
        client.call("publish", &publish(n));
        client.must_hear("open:a", &json!(n));
    }
    // Longer than a peer may be silent that is not held up.
    while began.elapsed() < Duration::from_secs(1) {
        client.call("publish", &publish("more"));
    }
    for n in 0..300 {
        held.must_hear("open:a", &json!(n));
    }
}

#[test]
fn a_peer_that_is_closed_meanwhile_takes_its_question_with_it() {
    let app = Receiver::start(|post| if post["user"] == "41" { Reply::Never } else { yes() });
    let server = server(app.address, &[Rpc], |config| {
        config.hook.timeout = Duration::from_secs(60);
        // The only turn is free again, or the next peer would wait for the whole time.
        config.hook.concurrency = 1;
    });
    let mut held = server.client(41);
    send(&mut held, "rpc", &json!({"method": "x"}));
    app.post();
    server.hub.disconnect_user(&41.into(), CloseReason::FORCE_DISCONNECT).wait().unwrap();
    assert_eq!(held.peer.skip_to_close().0, 3503);
    assert_eq!(server.client(42).call("rpc", &json!({"method": "x"})), json!({}));
}

#[test]
fn questions_over_the_bound_wait_for_their_turn() {
    let app = Receiver::start(|post| if post["user"] == "41" { Reply::Never } else { yes() });
    let server = server(app.address, &[Rpc], |config| {
        config.hook.concurrency = 1;
        config.hook.timeout = Duration::from_secs(60);
    });
    let (mut first, mut second) = (server.client(41), server.client(42));
    send(&mut first, "rpc", &json!({"method": "x"}));
    app.post();
    send(&mut second, "rpc", &json!({"method": "x"}));
    assert!(app.is_left_alone(), "there is one turn, and it is taken");
    drop(first);
    server.hub.disconnect_user(&41.into(), CloseReason::FORCE_DISCONNECT).wait().unwrap();
    assert_eq!(second.reply()["rpc"], json!({}));
}

#[test]
fn what_was_agreed_to_is_not_asked_again_for_want_of_room_in_the_ring() {
    let app = Receiver::agreeing();
    let server = server(app.address, &[Publish], |config| {
        config.server.shards = 2;
        config.limits.ring_messages = 16;
        config.limits.publish_wait = Duration::from_secs(60);
    });
    let embedder = Embedder::with(&server.hub, adopt_blocker);
    let mut blocker = embedder.open();
    embedder.outcomes.recv().unwrap().unwrap();
    // It comes to the other shard, as that has fewer.
    let mut client = server.client(42);
    client.subscribe("open:a");
    let held = hold(&mut blocker);
    (0..6).for_each(|n| send(&mut client, "publish", &publish(n)));
    // A connection may have a quarter of the ring.
    (0..4).for_each(|n| client.must_hear("open:a", &json!(n)));
    (0..5).for_each(|n| assert_eq!(app.post()["data"], n));
    assert!(app.is_left_alone(), "the fifth waits for room, and the sixth for the fifth");
    drop(held);
    (4..6).for_each(|n| client.must_hear("open:a", &json!(n)));
    assert_eq!(app.posts().len(), 1);
    drop(client);
    drop(blocker);
}
