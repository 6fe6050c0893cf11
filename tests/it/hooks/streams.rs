use fanfare::UserId;
use fanfare::config::HookCall::{Connect, Subscribe};
use serde_json::json;

use super::receiver::*;
use crate::client::*;
use crate::sse::event_source::*;
use crate::support::*;

#[test]
fn a_stream_begins_once_the_application_has_said_yes_to_all_of_it() {
    let app = Receiver::start(|post| match &post["channel"] {
        channel if channel == "open:b" => error(1000, "not b"),
        _ => yes(),
    });
    let server = server(app.address, &[Connect, Subscribe], |_| {});
    let bearer = format!("authorization: Bearer {}\r\n", server.token(42));
    let mut stream = EventSource::open(&server, "?channels=open:a,news:a", &bearer);
    let [connect, a, news] = [app.post(), app.post(), app.post()];
    let client = &connect["client"];
    assert_eq!(client.as_str().unwrap().len(), 36);
    let subscribe =
        |channel| json!({"call": "subscribe", "client": client, "user": "42", "channel": channel});
    assert_eq!((&connect["call"], &connect["name"]), (&json!("connect"), &json!("sse")));
    assert_eq!([a, news], [subscribe("open:a"), subscribe("news:a")]);
    server.api("publish", r#"{"channel":"open:a","data":1}"#);
    stream.expect("open:a", "1");
    let (status, answer) = server.request(&get("?channels=open:a,open:b", &bearer));
    assert_eq!(status, 403, "{answer}");
    assert!(answer.ends_with(r#"{"error":{"code":1000,"message":"not b"}}"#), "{answer}");
    assert_eq!(server.hub.connections(), 1);
}

#[test]
fn the_application_may_say_whose_a_stream_is_and_let_it_in() {
    let app =
        Receiver::start(|_| Reply::Json(json!({"result": {"user": "42", "channels": ["secret"]}})));
    let server = server(app.address, &[Connect], |_| {});
    let mut stream = EventSource::open(&server, "?channels=secret", "");
    assert_eq!(server.hub.user_connections(&UserId::from(42)), 1);
    server.api("publish", r#"{"channel":"secret","data":1}"#);
    stream.expect("secret", "1");
    let (status, _) = server.request(&get("?token=nonsense", ""));
    assert_eq!(status, 401, "a bad token is not asked about");
    assert_eq!(app.posts().len(), 1);
}

#[test]
fn a_stream_ends_when_the_application_said() {
    let app = Receiver::start(|post| {
        let is_connect = post["call"] == "connect";
        let expires = if is_connect { json!(null) } else { json!(in_seconds(1)) };
        Reply::Json(json!({"result": {"expire_at": expires}}))
    });
    let server = server(app.address, &[Connect, Subscribe], |_| {});
    let query = format!("?channels=open:a&token={}", server.token(42));
    let mut stream = EventSource::open(&server, &query, "");
    stream.expect("disconnect", r#"{"code":3006,"reason":"subscription expired"}"#);
}

#[test]
fn without_an_answer_the_stream_is_refused_for_now() {
    let app = Receiver::start(|_| Reply::Status(500));
    let server = server(app.address, &[Connect], |_| {});
    let query = format!("?channels=open:a&token={}", server.token(42));
    let (status, answer) = server.request(&get(&query, ""));
    assert_eq!(status, 503, "{answer}");
    assert_header(&answer, "retry-after: 1");
}
