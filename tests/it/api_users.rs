use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare::config::Recovery;
use serde_json::{Value, json};

use crate::api_publish::{client, error, ok, remembering, subscribed};
use crate::support::*;

#[test]
fn a_user_is_subscribed_in_every_tab_that_can_be_told() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let mut chat = server.connect(42);
    let mut tabs = [client(&server, 42).0, client(&server, 42).0];
    let mut other = client(&server, 7).0;
    let body = r#"{"user":"42","channel":"news","data":{"a":
        1}}"#;
    assert_eq!(ok(&server, "subscribe", body), json!({"connections": 2}));
    let news = r#"{"channel":"news","data":1}"#;
    assert_eq!(ok(&server, "publish", news), json!({"connections": 2}));
    for tab in &mut tabs {
        let push: Value = serde_json::from_str(&tab.read_text()).unwrap();
        let subscribe = json!({"channel": "news", "subscribe": {"data": {"a": 1}}});
        assert_eq!(push["push"], subscribe);
        assert_eq!(tab.read_text(), r#"{"push":{"channel":"news","pub":{"data":1}}}"#);
    }
    // Who is subscribed stays so, and is told nothing more.
    assert_eq!(ok(&server, "subscribe", body), json!({"connections": 2}));
    server.hub.broadcast("1").wait().unwrap();
    assert_eq!(chat.read_text(), "1");
    for peer in tabs.iter_mut().chain([&mut other]) {
        assert_eq!(peer.read_text(), r#"{"push":{"message":{"data":1}}}"#);
    }
}

#[test]
fn a_subscription_goes_on_from_where_a_backend_says() {
    let server = remembering();
    for i in 1..=3 {
        ok(&server, "publish", &format!(r#"{{"channel":"news","data":{i}}}"#));
    }
    let epoch = ok(&server, "history", r#"{"channel":"news"}"#)["epoch"].clone();
    let (mut peer, _) = client(&server, 42);
    let body = |epoch: &Value| {
        let since = format!(r#"{{"offset":1,"epoch":{epoch}}}"#);
        format!(r#"{{"user":42,"channel":"news","recover_since":{since}}}"#)
    };
    assert_eq!(error(&server, "subscribe", &body(&json!("other"))), 112);
    assert_eq!(ok(&server, "subscribe", &body(&epoch)), json!({"connections": 1}));
    let pushed = peer.read_text();
    let lines: Vec<_> = pushed.lines().collect();
    let subscribe = format!(
        r#"{{"push":{{"channel":"news","subscribe":{{"recoverable":true,"positioned":true,"epoch":{epoch},"offset":3}}}}}}"#
    );
    assert_eq!(lines[0], subscribe);
    assert_eq!(lines[1], r#"{"push":{"channel":"news","pub":{"data":2,"offset":2}}}"#);
    assert_eq!(lines[2], r#"{"push":{"channel":"news","pub":{"data":3,"offset":3}}}"#);
    ok(&server, "publish", r#"{"channel":"news","data":4}"#);
    assert_eq!(peer.read_text(), r#"{"push":{"channel":"news","pub":{"data":4,"offset":4}}}"#);
}

#[test]
fn a_subscription_that_ends_closes_with_3006() {
    let server = TestServer::with(|config| {
        config.heartbeat.interval = Duration::from_secs(1);
        config.channel.recovery = Recovery::Off;
    });
    let (mut peer, _) = client(&server, 42);
    let soon = seconds() + 1;
    let body = format!(r#"{{"user":42,"channel":"news","expire_at":{soon}}}"#);
    ok(&server, "subscribe", &body);
    let (code, _) = peer.skip_to_close();
    assert_eq!(code, 3006);
}

#[test]
fn what_a_user_cannot_be_subscribed_to_is_an_error() {
    let server = TestServer::with(|config| config.limits.subscriptions = 1);
    let (_peer, _) = subscribed(&server, "news");
    let past = format!(r#"{{"user":42,"channel":"more","expire_at":{}}}"#, seconds() - 1);
    let large = "x".repeat(65 << 10);
    let large = format!(r#"{{"user":42,"channel":"more","data":"{large}"}}"#);
    for (body, code) in [
        (r#"{"user":42,"channel":"nowhere:news"}"#, 102),
        (r#"{"user":42,"channel":"more"}"#, 106),
        (&large, 106),
        (r#"{"user":42}"#, 107),
        (r#"{"channel":"news"}"#, 107),
        (r#"{"user":"","channel":"news"}"#, 107),
        (r#"{"user":42,"channel":"more","expire_at":1e3}"#, 107),
        (r#"{"user":42,"channel":"more","expire_at":18446744073709551615}"#, 107),
        (r#"{"user":42,"channel":"more","session":"s"}"#, 108),
        (r#"{"user":42,"channel":"more","override":{"presence":{"value":true}}}"#, 108),
        (&past, 110),
    ] {
        assert_eq!(error(&server, "subscribe", body), code, "{body}");
    }
    // Nobody is there to be refused.
    let nobody = ok(&server, "subscribe", r#"{"user":7,"channel":"more","session":""}"#);
    assert_eq!(nobody, json!({"connections": 0}));
}

#[test]
fn an_unsubscribed_peer_is_told_and_gets_no_more() {
    let server = TestServer::start();
    let (mut peer, client) = subscribed(&server, "news");
    let (mut tab, _) = subscribed(&server, "news");
    let body = format!(r#"{{"user":42,"channel":"news","client":"{client}"}}"#);
    assert_eq!(ok(&server, "unsubscribe", &body), json!({"connections": 1}));
    assert_eq!(ok(&server, "unsubscribe", &body), json!({"connections": 0}));
    ok(&server, "publish", r#"{"channel":"news","data":1}"#);
    assert_eq!(tab.read_text(), r#"{"push":{"channel":"news","pub":{"data":1}}}"#);
    assert_eq!(
        peer.read_text(),
        r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#
    );
    server.hub.broadcast("1").wait().unwrap();
    assert_eq!(peer.read_text(), r#"{"push":{"message":{"data":1}}}"#);
    assert_eq!(error(&server, "unsubscribe", r#"{"user":42,"channel":"nowhere:x"}"#), 102);
    assert_eq!(error(&server, "unsubscribe", r#"{"user":42}"#), 107);
}

#[test]
fn a_refresh_moves_the_end_of_connections() {
    let server = TestServer::start();
    let (mut tab, _) = client(&server, 42);
    let (mut peer, client) = client(&server, 42);
    let body = |rest: &str| format!(r#"{{"user":42,"client":"{client}"{rest}}}"#);
    let later = format!(r#","expire_at":{}"#, seconds() + 3600);
    assert_eq!(ok(&server, "refresh", &body(&later)), json!({"connections": 1}));
    let push: Value = serde_json::from_str(&peer.read_text()).unwrap();
    assert_eq!(push["push"]["refresh"]["expires"], true);
    let ttl = push["push"]["refresh"]["ttl"].as_u64().unwrap();
    assert!((3590..=3600).contains(&ttl), "{ttl}");
    ok(&server, "refresh", &body(""));
    assert_eq!(peer.read_text(), r#"{"push":{"refresh":{}}}"#);
    assert_eq!(ok(&server, "refresh", &body(r#","expired":true"#)), json!({"connections": 1}));
    assert_eq!(peer.read_close(), (3005, "expired".into()));
    let past = format!(r#"{{"user":42,"expire_at":{}}}"#, seconds() - 1);
    assert_eq!(ok(&server, "refresh", &past), json!({"connections": 1}));
    assert_eq!(tab.read_close(), (3005, "expired".into()));
    assert_eq!(ok(&server, "refresh", &past), json!({"connections": 0}));
    assert_eq!(error(&server, "refresh", "{}"), 107);
}

#[test]
fn a_refresh_that_lets_a_chat_connection_expire_closes_it() {
    let server = TestServer::with(|config| config.heartbeat.interval = Duration::from_secs(1));
    let mut chat = server.connect(42);
    let body = format!(r#"{{"user":42,"expire_at":{}}}"#, seconds() + 1);
    assert_eq!(ok(&server, "refresh", &body), json!({"connections": 1}));
    assert_eq!(chat.skip_to_close(), (3005, "expired".into()));
}

#[test]
fn a_disconnect_can_be_for_one_or_for_all_but_some() {
    let server = TestServer::start();
    let mut chat = server.connect(42);
    let (mut kept, keep) = client(&server, 42);
    let (mut tab, _) = client(&server, 42);
    let (_other, foreign) = client(&server, 7);
    let (mut one, client) = client(&server, 42);
    let none = format!(r#"{{"user":42,"client":"{foreign}"}}"#);
    assert_eq!(ok(&server, "disconnect", &none), json!({"connections": 0}));
    let body =
        format!(r#"{{"user":42,"client":"{client}","disconnect":{{"code":4001,"reason":"bye"}}}}"#);
    assert_eq!(ok(&server, "disconnect", &body), json!({"connections": 1}));
    assert_eq!(one.read_close(), (4001, "bye".into()));
    let body = format!(r#"{{"user":42,"whitelist":["{keep}"]}}"#);
    assert_eq!(ok(&server, "disconnect", &body), json!({"connections": 2}));
    for peer in [&mut chat, &mut tab] {
        assert_eq!(peer.read_close(), (3503, "force disconnect".into()));
    }
    server.hub.broadcast("1").wait().unwrap();
    assert_eq!(kept.read_text(), r#"{"push":{"message":{"data":1}}}"#);
    for (body, code) in [
        (r#"{"user":42,"disconnect":{"code":0,"reason":""}}"#, 107),
        (r#"{"client":"x"}"#, 107),
        (r#"{"user":42,"session":"x"}"#, 108),
    ] {
        assert_eq!(error(&server, "disconnect", body), code, "{body}");
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
