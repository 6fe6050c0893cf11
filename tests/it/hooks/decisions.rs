use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use fanfare::config::HookCall::{Connect, Message, Publish, Rpc, Subscribe};
use fanfare::hook::{Act, Change, Consent, Decision, Delivery, Hooks, Notice, Question, Refusal};
use serde_json::json;

use super::receiver::*;
use crate::client::*;
use crate::support::*;

#[test]
fn a_publish_goes_out_as_it_is_rewritten_or_not_at_all() {
    let app = Receiver::start(|post| match &post["data"] {
        data if data == "bad" => error(1000, "no \"such\" words"),
        data if data == "worst" => {
            Reply::Json(json!({"disconnect": {"code": 4500, "reason": "out"}}))
        }
        data if data == "long" => Reply::Text("{\"result\":{\"data\":[\n1,\r\n2]}}"),
        _ => yes(),
    });
    let server = server(app.address, &[Publish], |_| {});
    let mut client = server.client(42);
    client.subscribe("open:a");
    assert_eq!(client.call("publish", &publish("good")), json!({}));
    client.must_hear("open:a", &json!("good"));
    let post = app.post();
    assert!(post["client"].as_str().unwrap().len() == 36, "{post}");
    let expected = json!({"call": "publish", "client": post["client"], "user": "42",
        "channel": "open:a", "data": "good"});
    assert_eq!(post, expected);
    client.call("publish", &publish("long"));
    client.must_hear("open:a", &json!([1, 2]));
    let refused = client.ask("publish", &publish("bad"));
    assert_eq!(refused["error"], json!({"code": 1000, "message": "no \"such\" words"}));
    send(&mut client, "publish", &publish("worst"));
    assert_eq!(client.peer.skip_to_close(), (4500, "out".to_owned()));
    assert_eq!(server.metric("fanfare_hook_calls_total{call=\"publish\"}"), 4.0);
}

#[test]
fn what_the_settings_refuse_is_not_asked() {
    let app = Receiver::agreeing();
    let server = server(app.address, &[Publish, Subscribe], |_| {});
    let mut client = server.client(42);
    assert_eq!(client.refusal("publish", &publish("x")), 103);
    assert_eq!(client.refusal("subscribe", &json!({"channel": "token"})), 103);
    assert_eq!(client.refusal("subscribe", &json!({"channel": "gone:a"})), 102);
    assert!(app.posts().is_empty());
}

#[test]
fn what_a_hook_makes_too_long_does_not_go_out() {
    // The chat's may be longer by its envelope.
    let app = Receiver::start(|_| Reply::Json(json!({"result": {"data": "x".repeat(5000)}})));
    let server = server(app.address, &[Publish], |config| config.limits.message_bytes = 1500);
    let mut client = server.client(42);
    client.subscribe("open:a");
    assert_eq!(client.refusal("publish", &publish("x")), 106);
    let mut ada = server.connect(42);
    ada.send_text(r#"{"type":"message","body":"x"}"#);
    let refused = r#"{"type":"error","code":106,"message":"limit exceeded"}"#;
    assert_eq!(ada.read_message(), refused);
}

#[test]
fn commands_behind_one_that_is_asked_about_wait_for_it() {
    let app = Receiver::agreeing();
    let server = server(app.address, &[Subscribe, Publish], |_| {});
    let mut client = server.client(42);
    let mut commands = vec![client.command("subscribe", &json!({"channel": "open:a"}))];
    commands.extend((0..20).map(|n| client.command("publish", &publish(n))));
    commands.push(client.command("unsubscribe", &json!({"channel": "open:a"})));
    client.peer.send_text(&commands.join("\n"));
    for id in 2..=23 {
        let reply = client.reply();
        assert!(reply["id"] == id && reply.get("error").is_none(), "{reply}");
    }
    assert_eq!(app.posts().len(), 21);
}

#[test]
fn a_connect_without_token_is_whose_the_application_says() {
    let app = Receiver::start(|post| match &post["data"]["cookie"] {
        cookie if cookie == "good" => Reply::Json(json!({"result": {
            "user": 42,
            "info": {"name": "Ada"},
            "data": {"welcome": true},
            "channels": ["news:a"],
            "subs": {"open:a": {"data": {"topic": "x"}}},
        }})),
        cookie if cookie == "banned" => error(1003, "banned"),
        _ => yes(),
    });
    let server = server(app.address, &[Connect], |_| {});
    let mut client = server.stranger();
    let said = json!({"data": {"cookie": "good"}, "name": "js", "version": "5"});
    let result = client.call("connect", &said);
    assert_eq!(result["data"], json!({"welcome": true}));
    assert_eq!(result["subs"]["open:a"]["data"], json!({"topic": "x"}));
    assert!(result["subs"]["news:a"]["recoverable"] == true, "{result}");
    let expected = json!({"call": "connect", "client": result["client"], "user": "",
        "data": {"cookie": "good"}, "name": "js", "version": "5"});
    assert_eq!(app.post(), expected);
    let present = client.call("presence", &json!({"channel": "news:a"}));
    let present = present["presence"].as_object().unwrap().values().next().unwrap().clone();
    assert_eq!((&present["user"], &present["conn_info"]["name"]), (&json!("42"), &json!("Ada")));
    assert_eq!(server.hub.user_connections(&42.into()), 1);

    assert_eq!(server.stranger().refusal("connect", &json!({"data": {"cookie": "banned"}})), 1003);
    let mut nobody = server.stranger();
    send(&mut nobody, "connect", &json!({}));
    assert_eq!(nobody.peer.skip_to_close().0, 3500);
}

#[test]
fn a_token_that_is_no_good_is_not_made_so() {
    let app = Receiver::start(|_| Reply::Json(json!({"result": {"user": "7"}})));
    let server = server(app.address, &[Connect], |_| {});
    let mut forger = server.stranger();
    send(&mut forger, "connect", &json!({"token": "x.y.z"}));
    assert_eq!(forger.peer.skip_to_close().0, 3500);
    let mut late = server.stranger();
    let expired = sign(&json!({"sub": "42", "exp": in_seconds(-1)}));
    assert_eq!(late.refusal("connect", &json!({"token": expired})), 109);
    assert!(app.posts().is_empty());
    // A user that a token names stays who it is.
    let client = server.client(42);
    assert_eq!(app.post()["user"], "42");
    assert_eq!(server.hub.user_connections(&42.into()), 1);
    drop(client);
}

#[test]
fn a_connection_and_a_subscription_end_when_the_application_says() {
    let app = Receiver::start(|post| {
        let seconds = if post["call"] == "connect" { 3 } else { 1 };
        Reply::Json(json!({"result": {"user": "42", "expire_at": in_seconds(seconds)}}))
    });
    let server = server(app.address, &[Connect, Subscribe], |_| {});
    let mut client = server.stranger();
    let result = client.call("connect", &json!({}));
    assert!(result.get("expires").is_none(), "no client can refresh it: {result}");
    assert!(client.subscribe("open:a").get("expires").is_none());
    // A token without an end makes neither later.
    client.call("refresh", &json!({"token": sign(&json!({"sub": "42"}))}));
    let token = sign(&json!({"sub": "42", "channel": "open:a"}));
    client.call("sub_refresh", &json!({"channel": "open:a", "token": token}));
    let push = client.push();
    assert_eq!((&push["channel"], &push["unsubscribe"]["code"]), (&json!("open:a"), &json!(2501)));
    assert_eq!(client.peer.skip_to_close().0, 3005);
}

#[test]
fn a_subscribe_is_refused_or_gets_what_the_application_adds() {
    let app = Receiver::start(|post| match post["data"]["secret"].as_bool() {
        Some(true) => Reply::Json(json!({"result": {
            "info": {"role": "speaker"}, "data": {"topic": "x"}, "allow": ["pub"],
        }})),
        _ => error(403, "not you"),
    });
    let server = server(app.address, &[Subscribe], |config| {
        namespace(config, "stage", |it| it.publish = fanfare::config::Publish::Token);
    });
    let mut client = server.client(42);
    let refused = client.ask("subscribe", &json!({"channel": "stage:a"}));
    assert_eq!(refused["error"], json!({"code": 403, "message": "not you"}));
    assert_eq!(app.post()["channel"], "stage:a");
    let wanted = json!({"channel": "stage:a", "data": {"secret": true}});
    assert_eq!(client.call("subscribe", &wanted)["data"], json!({"topic": "x"}));
    client.call("publish", &json!({"channel": "stage:a", "data": 1}));
    let push = client.push();
    assert_eq!(push["pub"]["info"]["chan_info"], json!({"role": "speaker"}));
}

#[test]
fn rpc_is_answered_by_the_application_or_not_available() {
    let app = Receiver::start(|post| match post["method"].as_str() {
        // A line break would end the reply in the protocol's framing.
        Some("add") => Reply::Text("{\"result\":{\"data\":{\n\"sum\":\r\n3}}}"),
        Some("nothing") => Reply::Text("{}"),
        _ => error(404, "unknown method"),
    });
    let server = server(app.address, &[Rpc], |_| {});
    let mut client = server.client(42);
    let sum = client.call("rpc", &json!({"method": "add", "data": [1, 2]}));
    assert_eq!(sum, json!({"data": {"sum": 3}}));
    let post = app.post();
    let expected = json!({"call": "rpc", "client": post["client"], "user": "42", "method": "add",
        "data": [1, 2]});
    assert_eq!(post, expected);
    assert_eq!(client.call("rpc", &json!({"method": "nothing"})), json!({}));
    assert_eq!(client.refusal("rpc", &json!({"method": "x"})), 404);
    let unhooked = TestServer::with_channels(|_| {});
    assert_eq!(unhooked.client(42).refusal("rpc", &json!({"method": "add"})), 108);
}

#[test]
fn a_message_is_passed_on_and_may_end_the_connection() {
    let app = Receiver::start(|post| match &post["data"] {
        data if data == "bye" => Reply::Json(json!({"disconnect": {"code": 4000}})),
        _ => error(1000, "told to nobody"),
    });
    let server = server(app.address, &[Message], |_| {});
    let mut client = server.client(42);
    client.peer.send_text(r#"{"send":{"data":{"typing":true}}}"#);
    assert_eq!(app.post()["data"], json!({"typing": true}));
    // The next reply is to the next command.
    client.subscribe("open:a");
    client.peer.send_text(r#"{"send":{"data":"bye"}}"#);
    assert_eq!(client.peer.skip_to_close(), (4000, String::new()));
}

#[test]
fn what_is_said_in_the_chat_is_refused_or_rewritten() {
    let app = Receiver::start(|post| match &post["data"]["body"] {
        body if body == "bad" => error(1000, "no \"such\" words"),
        body if body == "worst" => Reply::Json(json!({"disconnect": {"code": 4500}})),
        body if body == "hi" => yes(),
        _ => Reply::Text(r#"{"result":{"data":{"type":"message","body":"***"}}}"#),
    });
    let server = server(app.address, &[Publish], |_| {});
    let (mut ada, mut grace) = (server.connect(42), server.connect(43));
    for body in ["hi", "bad", "darn"] {
        ada.send_text(&format!(r#"{{"type":"message","body":"{body}"}}"#));
    }
    let hi = r#"{"type":"message","user_id":42,"name":"User 42","body":"hi"}"#;
    let stars = r#"{"type":"message","body":"***"}"#;
    assert_eq!((&*grace.read_message(), &*grace.read_message()), (hi, stars));
    let refused = r#"{"type":"error","code":1000,"message":"no \"such\" words"}"#;
    let mut heard = [ada.read_message(), ada.read_message(), ada.read_message()];
    heard.sort();
    let mut expected = [hi, stars, refused];
    expected.sort();
    assert_eq!(heard, expected);
    let post = app.post();
    assert_eq!((&post["call"], &post["channel"]), (&json!("publish"), &json!("chat")));
    assert_eq!((&post["user"], &post["client"]), (&json!("42"), &json!("")));
    ada.send_text(r#"{"type":"message","body":"worst"}"#);
    assert_eq!(ada.skip_to_close().0, 4500);
}

#[test]
fn a_chat_peer_is_let_in_or_told_why_not() {
    let app = Receiver::start(|post| match post["user"].as_str() {
        Some("1") => error(1003, &"é".repeat(100)),
        Some("2") => Reply::Json(json!({"disconnect": {"code": 4500, "reason": "out"}})),
        Some("3") => Reply::Status(500),
        _ => Reply::Json(json!({"result": {"expire_at": in_seconds(1)}})),
    });
    let server = server(app.address, &[Connect], |_| {});
    for (user, code, reason) in
        [(1, 3503, &*"é".repeat(61)), (2, 4500, "out"), (3, 3004, "server error")]
    {
        assert_eq!(server.open(user).read_close(), (code, reason.to_owned()));
    }
    let mut ada = server.connect(42);
    assert_eq!(ada.skip_to_close().0, 3005);
    assert_eq!(app.posts().last().unwrap()["call"], "connect");
}

#[test]
fn a_stream_is_asked_about_before_it_begins() {
    let app = Receiver::start(|post| match (post["call"].as_str(), post["channel"].as_str()) {
        (Some("connect"), _) if post["user"] == "1" => error(1003, "banned"),
        (Some("subscribe"), Some("open:no")) => error(403, "not you"),
        (Some("subscribe"), Some("open:late")) => Reply::Status(500),
        _ => yes(),
    });
    let server = server(app.address, &[Connect, Subscribe], |_| {});
    let get = |user, channels: &str| {
        let token = server.token(user);
        format!("GET /sse?token={token}&channels={channels} HTTP/1.1\r\nhost: x\r\n\r\n")
    };
    for (user, channels, status, error) in [
        (1, "open:a", 403, r#"{"code":1003,"message":"banned"}"#),
        (42, "open:a,open:no", 403, r#"{"code":403,"message":"not you"}"#),
        (42, "open:late", 503, r#"{"code":100,"message":"internal server error"}"#),
    ] {
        let (answered, answer) = server.request(&get(user, channels));
        assert!(answered == status && answer.contains(error), "{answer}");
    }
    let mut stream = server.dial();
    stream.send(get(42, "open:a").as_bytes());
    assert!(stream.read_head().starts_with("HTTP/1.1 200 "));
}

/// Decides in the process, and answers an RPC with what it was called with.
struct Embedded {
    told: mpsc::Sender<Vec<Notice>>,
    is_deaf: AtomicBool,
}

impl Hooks for Embedded {
    fn decide(&self, question: &Question<'_>) -> Option<Decision> {
        let Act::Rpc { method, data } = question.act else { return None };
        let mut consent = Consent::default();
        consent.data = data.map(ToOwned::to_owned);
        let refusal = (method == "no").then(|| Refusal::error(999, "no"));
        Some(Box::pin(async { refusal.map_or(Ok(consent), Err) }))
    }

    fn notify(&self, notices: &[Notice]) -> Delivery {
        let _ = self.told.send(notices.to_vec());
        let is_deaf = self.is_deaf.swap(false, Ordering::Relaxed);
        Box::pin(async move { if is_deaf { panic!("an application panics") } else { Ok(()) } })
    }
}

#[test]
fn an_embedder_decides_and_is_told_without_http() {
    let (told, notices) = mpsc::channel();
    let server = TestServer::hooked(Embedded { told, is_deaf: true.into() });
    let mut client = server.client(42);
    for _ in 0..2 {
        let told: Vec<Notice> = notices.recv_timeout(PATIENCE).unwrap();
        let joined = Change::UserJoined(42.into());
        assert_eq!((told[0].number, &told[0].change), (1, &joined), "it comes again");
    }
    let echoed = client.call("rpc", &json!({"method": "echo", "data": [1]}));
    assert_eq!(echoed, json!({"data": [1]}));
    assert_eq!(client.refusal("rpc", &json!({"method": "no"})), 999);
}
