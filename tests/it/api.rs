use std::io::Write;
use std::time::{Duration, Instant};

use fanfare::UserId;
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn data_reaches_every_connection_as_it_was_sent() {
    let server = TestServer::start();
    let mut peers = [server.connect(1), server.connect(1), server.connect(2)];
    for data in ["{\"b\": 1.0, \"a\" :\"\\u00fc\\/\", \"b\":2}", "null", "\"x\"", "[ ]", "1e400"] {
        let (status, answer) = server.api("broadcast_all", &format!(r#"{{ "data" : {data} }}"#));
        assert_eq!((status, answer.as_str()), (200, r#"{"result":{"connections":3}}"#));
        for peer in &mut peers {
            assert_eq!(peer.read_text(), data);
        }
    }
}

#[test]
fn a_user_is_reached_in_every_tab_and_no_one_else_is() {
    let server = TestServer::start();
    let mut tabs = [server.connect(42), server.connect(42)];
    let mut other = server.connect(7);
    for user in ["42", r#""42""#] {
        let body = format!(r#"{{"user":{user},"data":{{"type":"notification"}}}}"#);
        let (status, answer) = server.api("send_to_user", &body);
        assert_eq!((status, answer.as_str()), (200, r#"{"result":{"connections":2}}"#));
        for tab in &mut tabs {
            assert_eq!(tab.read_text(), r#"{"type":"notification"}"#);
        }
    }
    server.hub.broadcast("next").wait().unwrap();
    assert_eq!(other.read_text(), "next");
}

#[test]
fn a_user_with_no_connection_is_a_success_with_0() {
    let server = TestServer::start();
    let _other = server.connect(42);
    for (method, body) in [
        ("send_to_user", r#"{"user":7,"data":1}"#),
        ("send_to_user", r#"{"user":"042","data":1}"#),
        ("disconnect", r#"{"user":7}"#),
        ("user", r#"{"user":7}"#),
    ] {
        let (status, answer) = server.api(method, body);
        assert_eq!((status, answer.as_str()), (200, r#"{"result":{"connections":0}}"#), "{method}");
    }
    assert_eq!(server.hub.connections(), 1);
}

#[test]
fn a_user_is_looked_up() {
    let server = TestServer::start();
    let _tabs = [server.connect(42), server.connect(42)];
    for body in [r#"{"user":42}"#, r#"{"user":"42"}"#] {
        assert_eq!(server.api("user", body).1, r#"{"result":{"connections":2}}"#);
    }
}

#[test]
fn a_disconnect_closes_every_tab_with_the_code_and_reason_it_says() {
    let server = TestServer::start();
    for (given, code, reason) in [
        ("", 3503, "force disconnect"),
        (r#","code":3503,"reason":"banned""#, 3503, "banned"),
        (r#","code":4001,"reason":"Gr\u00fc\u00dfe""#, 4001, "Gr\u{fc}\u{df}e"),
        (r#","code":1000"#, 1000, ""),
    ] {
        let mut tabs = [server.connect(42), server.connect(42)];
        let (status, _) = server.api("disconnect", &format!(r#"{{"user":42{given}}}"#));
        assert_eq!(status, 200);
        for tab in &mut tabs {
            assert_eq!(tab.read_close(), (code, reason.to_owned()));
        }
        assert_eq!(server.hub.user_connections(&UserId::from(42)), 0);
    }
}

#[test]
fn a_disconnect_with_a_code_nobody_may_send_is_error_107() {
    let server = TestServer::start();
    let long = format!(r#"{{"user":1,"code":4000,"reason":"{}"}}"#, "x".repeat(124));
    for body in [r#"{"user":1,"code":1006}"#, r#"{"user":1,"code":70000}"#, &long] {
        let (status, answer) = server.api("disconnect", body);
        assert_eq!((status, fault(&answer)), (200, 107), "{body}");
    }
}

#[test]
fn info_has_centrifugos_shape() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let _peers = [server.connect(1), server.connect(1), server.connect(2)];
    server.hub.broadcast("x").wait().unwrap();
    for body in ["{}", ""] {
        let (status, answer) = server.api("info", body);
        assert_eq!(status, 200);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let node = &answer["result"]["nodes"][0];
        for key in ["uid", "name", "version"] {
            assert!(node[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {node}");
        }
        assert_eq!(node["num_clients"], 3);
        assert_eq!(node["num_users"], 2);
        assert_eq!((&node["num_subs"], &node["num_channels"]), (&json!(0), &json!(0)));
        assert!(node["uptime"].is_u64());
        assert!(node["metrics"]["interval"].is_number());
        assert_eq!(node["metrics"]["items"]["publishes"], 1.0);
        assert_eq!((&node["shards"], &node["users_present"]), (&json!(2), &json!(2)));
    }
}

#[test]
fn a_body_that_is_unreadable_or_incomplete_is_400() {
    let server = TestServer::start();
    for (method, body) in [
        ("broadcast_all", ""),
        ("broadcast_all", "{}"),
        ("broadcast_all", "[1]"),
        ("broadcast_all", r#"{"data":}"#),
        ("broadcast_all", r#"{"data":1"#),
        ("broadcast_all", r#"{"data":1}x"#),
        ("send_to_user", r#"{"data":1}"#),
        ("send_to_user", r#"{"user":1}"#),
        ("send_to_user", r#"{"user":1.5,"data":1}"#),
        ("send_to_user", r#"{"user":"","data":1}"#),
        ("send_to_user", r#"{"user":9007199254740992,"data":1}"#),
        ("disconnect", ""),
        ("publish", "[1]"),
        ("batch", "{"),
        ("user", r#"{"user":null}"#),
    ] {
        let (status, answer) = server.api(method, body);
        assert_eq!(status, 400, "{method} {body}");
        assert_eq!(fault(&answer), 107, "{method} {body}");
    }
}

#[test]
fn a_wrong_or_missing_key_is_401() {
    let server = TestServer::start();
    for key in ["", "another key of tests", &API_KEY[1..], &format!("{API_KEY}x")] {
        let (status, answer) = server.request(&post("info", key, "{}"));
        assert_eq!((status, fault(&answer)), (401, 101), "{key}");
    }
    let without = post("info", "", "{}").replace("x-api-key: \r\n", "");
    assert_eq!(server.request(&without).0, 401);
}

#[test]
fn without_a_key_the_api_is_off() {
    let server = TestServer::with(|config| config.api.key = None);
    let (status, answer) = server.request(&post("info", "", "{}"));
    assert_eq!(status, 404);
    assert!(answer.contains("api.key"), "{answer}");
}

#[test]
fn an_unknown_method_or_path_is_404() {
    let server = TestServer::start();
    for method in ["publishes", "", "info/", "Info"] {
        let (status, answer) = server.request(&post(method, API_KEY, "{}"));
        assert_eq!((status, fault(&answer)), (404, 104), "{method}");
    }
    let (status, answer) = server.request("GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((status, fault(&answer)), (404, 104));
}

#[test]
fn another_verb_is_405_and_learns_which() {
    let server = TestServer::start();
    let (status, answer) = server.request(&post("info", API_KEY, "{}").replacen("POST", "GET", 1));
    assert_eq!((status, fault(&answer)), (405, 104));
    assert_header(&answer, "allow: POST");
}

#[test]
fn a_request_over_the_limit_is_413() {
    let server = TestServer::with(|config| config.limits.request_bytes = 100 << 10);
    let body = |bytes: usize| format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes));
    let (status, answer) = server.api("broadcast_all", &body(100 << 10));
    assert_eq!((status, fault(&answer)), (413, 107), "{answer}");
    assert!(answer.contains("body is over"), "{answer}");
}

#[test]
fn data_over_the_limit_of_a_message_is_413() {
    let server = TestServer::start();
    let _peer = server.connect(1);
    let data = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let limit = 64 << 10;
    for (method, user) in [("broadcast_all", ""), ("send_to_user", r#""user":1,"#)] {
        let body = |bytes| format!(r#"{{{user}"data":{}}}"#, data(bytes));
        assert_eq!(server.api(method, &body(limit)).0, 200);
        let (status, answer) = server.api(method, &body(limit + 1));
        assert_eq!((status, fault(&answer)), (413, 106), "{answer}");
    }
    assert_eq!(server.metric(r#"fanfare_refusals_total{reason="too_large"}"#), 2.0);
}

#[test]
fn a_body_over_the_limit_is_refused_on_its_claimed_length() {
    let server = TestServer::start();
    let mut peer = server.dial();
    let head = post("broadcast_all", API_KEY, "");
    peer.send(head.replace("content-length: 0", "content-length: 99999999999").as_bytes());
    assert_eq!(peer.read_answer().0, 413);
    // One that is sent in spite of it does not take the answer with it.
    let mut peer = server.dial();
    peer.send(post("broadcast_all", API_KEY, &"x".repeat(8 << 20)).as_bytes());
    assert_eq!(peer.read_answer().0, 413);
    assert!(peer.ends());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let mut reader = server.connect(1);
    let mut backend = server.dial();
    let requests = (0..300).map(|i| match i % 3 {
        0 => post("broadcast_all", API_KEY, &format!(r#"{{"data":{i}}}"#)),
        1 => post("send_to_user", API_KEY, &format!(r#"{{"user":1,"data":{i}}}"#)),
        _ => post("user", API_KEY, r#"{"user":2}"#),
    });
    backend.send(requests.collect::<String>().as_bytes());
    for i in 0..300 {
        let (status, answer) = backend.read_answer();
        let reached = if i % 3 == 2 { "0" } else { "1" };
        assert_eq!(status, 200);
        assert!(answer.ends_with(&format!(r#"{{"connections":{reached}}}}}"#)), "{i}: {answer}");
    }
    for i in (0..300).filter(|i| i % 3 < 2) {
        assert_eq!(reader.read_text(), i.to_string());
    }
}

#[test]
fn answers_nobody_reads_hold_up_their_requests_alone() {
    let server = TestServer::start();
    let mut backend = server.dial();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut writer = backend.stream.try_clone().unwrap();
    writer.set_nonblocking(true).unwrap();
    // Answers are a hundred times the requests, so that the server must stop reading these.
    let mut sent = 0;
    wait_until("requests are taken no more", || {
        let block = request.repeat(1000);
        loop {
            match writer.write(&block.as_bytes()[sent % block.len()..]) {
                Ok(written) => sent += written,
                Err(_) => return sent > 1 << 20,
            }
        }
    });
    let _elsewhere = server.connect(1);
    writer.set_nonblocking(false).unwrap();
    for _ in 0..sent / request.len() / 100 {
        assert_eq!(backend.read_answer().0, 200);
    }
}

#[test]
fn broadcasts_unicasts_and_disconnects_of_one_publisher_arrive_in_order() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let mut reader = server.connect(1);
    let mut other = server.connect(2);
    let mut backend = server.dial();
    let mut requests = String::new();
    for i in 0..100 {
        requests += &post("broadcast_all", API_KEY, &format!(r#"{{"data":"b{i}"}}"#));
        requests += &post("send_to_user", API_KEY, &format!(r#"{{"user":1,"data":"u{i}"}}"#));
    }
    requests += &post("disconnect", API_KEY, r#"{"user":1}"#);
    requests += &post("broadcast_all", API_KEY, r#"{"data":"after"}"#);
    backend.send(requests.as_bytes());
    for i in 0..100 {
        assert_eq!(reader.read_text(), format!("\"b{i}\""));
        assert_eq!(reader.read_text(), format!("\"u{i}\""));
        assert_eq!(other.read_text(), format!("\"b{i}\""));
    }
    assert_eq!(reader.read_close(), (3503, "force disconnect".into()));
    assert_eq!(other.read_text(), "\"after\"");
}

#[test]
fn an_idle_connection_is_kept_for_its_timeout() {
    let server = TestServer::with(|config| {
        config.limits.handshake_timeout = Duration::from_millis(100);
        config.limits.keepalive_timeout = Duration::from_millis(600);
    });
    let mut backend = server.dial();
    for _ in 0..2 {
        backend.send(post("info", API_KEY, "{}").as_bytes());
        assert_eq!(backend.read_answer().0, 200);
    }
    let idle = Instant::now();
    assert!(backend.ends(), "an idle connection ends without a 408");
    let idle = idle.elapsed();
    assert!((500..3000).contains(&idle.as_millis()), "ended after {idle:?}");
}

#[test]
fn a_request_may_ask_for_the_end() {
    let server = TestServer::start();
    let mut backend = server.dial();
    let request = post("info", API_KEY, "{}");
    backend.send(request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes());
    assert_eq!(backend.read_answer().0, 200);
    assert!(backend.ends());
}

/// The code of an error answer, with or without its head.
fn fault(answer: &str) -> u64 {
    let body = answer.rsplit("\r\n\r\n").next().unwrap();
    let answer: Value = serde_json::from_str(body).unwrap();
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    answer["error"]["code"].as_u64().unwrap()
}
