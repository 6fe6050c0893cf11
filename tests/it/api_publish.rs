use std::sync::Barrier;

use fanfare::config::{Namespace, Recovery};
use serde_json::{Value, json};

use crate::client::sign;
use crate::support::*;

#[test]
fn a_publish_says_where_it_went_and_for_how_many() {
    let server = remembering();
    let (mut peer, _) = subscribed(&server, "news");
    for offset in 1..3 {
        let result = ok(&server, "publish", r#"{"channel":"news","data":{"a": 1}}"#);
        assert_eq!((&result["connections"], &result["offset"]), (&json!(1), &json!(offset)));
        assert!(result["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));
        let push = format!(
            r#"{{"push":{{"channel":"news","pub":{{"data":{{"a": 1}},"offset":{offset}}}}}}}"#
        );
        assert_eq!(peer.read_text(), push);
    }
    // A channel without history has no places.
    let (_, answer) = server.api("publish", r#"{"channel":"plain:news","data":1}"#);
    assert_eq!(answer, r#"{"result":{"connections":0}}"#);
}

#[test]
fn tags_go_with_a_publication_and_history_can_be_skipped() {
    let server = remembering();
    let (mut peer, _) = subscribed(&server, "news");
    let body = r#"{"channel":"news","data":1,"tags":{"k":"v"},"skip_history":true}"#;
    assert_eq!(server.api("publish", body).1, r#"{"result":{"connections":1}}"#);
    let push = r#"{"push":{"channel":"news","pub":{"data":1,"tags":{"k":"v"}}}}"#;
    assert_eq!(peer.read_text(), push);
    let page = ok(&server, "history", r#"{"channel":"news","limit":10}"#);
    assert_eq!((&page["offset"], &page["publications"]), (&json!(0), &json!([])));
    let body = r#"{"channel":"news","data":2,"tags":{"k":"v"}}"#;
    assert_eq!(ok(&server, "publish", body)["offset"], 1);
    let page = ok(&server, "history", r#"{"channel":"news","limit":10}"#);
    assert_eq!(page["publications"], json!([{"data": 2, "offset": 1, "tags": {"k": "v"}}]));
}

#[test]
fn json_may_come_in_base64_and_what_else_is_in_it_is_refused() {
    let server = remembering();
    let (mut peer, _) = subscribed(&server, "news");
    assert_eq!(
        ok(&server, "publish", r#"{"channel":"news","b64data":"eyJhIjoxfQ=="}"#)["offset"],
        1
    );
    assert_eq!(
        peer.read_text(),
        r#"{"push":{"channel":"news","pub":{"data":{"a":1},"offset":1}}}"#
    );
    for b64data in ["!", "AAEC", "e30=e30="] {
        let body = format!(r#"{{"channel":"news","b64data":"{b64data}"}}"#);
        assert_eq!(error(&server, "publish", &body), 107, "{b64data}");
    }
}

#[test]
fn a_publish_to_the_chats_channel_reaches_chat_and_subscribers() {
    let server = remembering();
    let mut chat = server.connect(1);
    let (mut peer, _) = subscribed(&server, "chat");
    let result = ok(&server, "publish", r#"{"channel":"chat","data":{"type":"notification"}}"#);
    assert_eq!(result["offset"], 1);
    assert_eq!(chat.read_text(), r#"{"type":"notification"}"#);
    assert_eq!(
        peer.read_text(),
        r#"{"push":{"channel":"chat","pub":{"data":{"type":"notification"},"offset":1}}}"#
    );
}

#[test]
fn a_broadcast_answers_for_each_channel() {
    let server = remembering();
    let (mut peer, _) = subscribed(&server, "b");
    let body = r#"{"channels":["a","nowhere:a","","b"],"data":"x"}"#;
    let responses = &ok(&server, "broadcast", body)["responses"];
    assert_eq!(responses[0]["result"]["offset"], 1);
    assert_eq!(responses[1]["error"]["code"], 102);
    assert_eq!(responses[2]["error"]["code"], 107);
    assert_eq!(responses[3]["result"]["connections"], 1);
    assert_eq!(peer.read_text(), r#"{"push":{"channel":"b","pub":{"data":"x","offset":1}}}"#);
}

#[test]
fn a_key_publishes_once_and_is_answered_alike() {
    let server = remembering();
    let (mut peer, _) = subscribed(&server, "news");
    let body = |data| format!(r#"{{"channel":"news","data":{data},"idempotency_key":"k"}}"#);
    let first = server.api("publish", &body(1));
    assert_eq!(server.api("publish", &body(2)), first);
    let broadcast = r#"{"channels":["news","other"],"data":3,"idempotency_key":"k"}"#;
    let responses = &ok(&server, "broadcast", broadcast)["responses"];
    assert_eq!(responses[0]["result"]["offset"], 1);
    assert_eq!(responses[1]["result"]["offset"], 1);
    server.api("publish", r#"{"channel":"news","data":"last"}"#);
    assert!(peer.read_text().contains(r#""data":1"#));
    assert!(peer.read_text().contains(r#""data":"last""#));
}

#[test]
fn of_those_who_race_for_a_key_one_publishes() {
    let server = TestServer::with(|config| {
        config.channel.history_size = 1000;
        config.server.shards = 2;
    });
    let start = Barrier::new(2);
    let race = || {
        start.wait();
        let answers = (0..100).map(|key| {
            let body = format!(r#"{{"channel":"news","data":1,"idempotency_key":"{key}"}}"#);
            server.api("publish", &body)
        });
        answers.collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(race);
        (race(), other.join().unwrap())
    });
    assert_eq!(one, other);
    let position = ok(&server, "history", r#"{"channel":"news"}"#);
    assert_eq!(position["offset"], 100);
}

#[test]
fn a_publish_that_cannot_be_carried_out_is_an_error_under_200() {
    let server = TestServer::with(|config| {
        config.channel.max_bytes = 16;
        config.channel.history_size = 1;
        config.limits.channels = 1;
    });
    assert_eq!(ok(&server, "publish", r#"{"channel":"news","data":1}"#)["offset"], 1);
    let long = format!(r#"{{"channel":"{}","data":1}}"#, "x".repeat(256));
    let key = format!(r#"{{"channel":"news","data":1,"idempotency_key":"{}"}}"#, "k".repeat(129));
    for (body, code) in [
        (r#"{"channel":"nowhere:news","data":1}"#, 102),
        (r#"{"channel":"other","data":1}"#, 106),
        (r#"{"channel":"news","data":"123456789 12345"}"#, 106),
        (r#"{"channel":"news","data":1,"tags":{"0123456789":"123456"}}"#, 106),
        (r#"{"channel":"","data":1}"#, 107),
        (r#"{"data":1}"#, 107),
        (r#"{"channel":"news"}"#, 107),
        (r#"{"channel":["news"],"data":1}"#, 107),
        (&long, 107),
        (&key, 107),
        (r#"{"channel":"news","data":1,"version":7}"#, 108),
    ] {
        assert_eq!(error(&server, "publish", body), code, "{body}");
    }
    assert_eq!(error(&server, "broadcast", r#"{"channels":[],"data":1}"#), 107);
    assert_eq!(ok(&server, "history", r#"{"channel":"news"}"#)["offset"], 1);
    assert_eq!(server.metric(r#"fanfare_api_errors_total{code="106"}"#), 3.0);
    assert_eq!(server.metric(r#"fanfare_api_calls_total{method="publish"}"#), 12.0);
}

#[test]
fn without_room_a_publish_is_error_111_and_leaves_no_trace() {
    // Room for four, and a batch in which the pump has no turn.
    let server = TestServer::with(|config| {
        config.limits.ring_messages = 4;
        config.channel.history_size = 10;
    });
    let publish = r#"{"publish":{"channel":"news","data":1}}"#;
    let commands = [publish; 6].join(",");
    let all = r#"{"broadcast_all":{"data":1}}"#;
    let history = r#"{"history":{"channel":"news"}}"#;
    let replies = batch(&server, &format!(r#"{{"commands":[{commands},{all},{history}]}}"#));
    assert_eq!(replies[3]["publish"]["offset"], 4);
    for reply in &replies[4..7] {
        assert_eq!(reply["error"]["code"], 111);
    }
    assert_eq!(replies[7]["history"]["offset"], 4);
}

/// Channels outside of a namespace remember, those of `plain` do not.
pub fn remembering() -> TestServer {
    TestServer::with(|config| {
        config.channel.history_size = 10;
        config.channel.recovery = Recovery::Stream;
        config.namespaces.insert("plain".to_owned(), Namespace::default());
    })
}

/// A connection of the Centrifuge protocol, and what names it.
pub fn client(server: &TestServer, user: i32) -> (Peer, String) {
    let mut client = server.stranger();
    let token = sign(&json!({"sub": user.to_string()}));
    let mut connected = client.call("connect", &json!({"token": token}));
    let Value::String(name) = connected["client"].take() else { panic!("{connected}") };
    (client.peer, name)
}

/// A connection of user 42 that the server subscribed to a channel.
pub fn subscribed(server: &TestServer, channel: &str) -> (Peer, String) {
    let (mut peer, client) = client(server, 42);
    let body = format!(r#"{{"user":42,"channel":"{channel}","client":"{client}"}}"#);
    assert_eq!(server.api("subscribe", &body).1, r#"{"result":{"connections":1}}"#);
    let push = peer.read_text();
    assert!(
        push.starts_with(&format!(r#"{{"push":{{"channel":"{channel}","subscribe":{{"#)),
        "{push}"
    );
    (peer, client)
}

/// The result of a command that succeeds.
pub fn ok(server: &TestServer, method: &str, body: &str) -> Value {
    let (status, answer) = server.api(method, body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, answer["error"].clone()), (200, Value::Null), "{body}");
    answer["result"].clone()
}

/// The code of a command that fails in band.
pub fn error(server: &TestServer, method: &str, body: &str) -> u64 {
    let (status, answer) = server.api(method, body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    answer["error"]["code"].as_u64().unwrap()
}

/// The replies to a batch.
pub fn batch(server: &TestServer, body: &str) -> Vec<Value> {
    let (status, answer) = server.api("batch", body);
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["replies"].as_array().unwrap().clone()
}
