use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn what_expires_ends_25_seconds_later_unless_it_is_refreshed() {
    let server = TestServer::with_channels(|config| config.heartbeat.interval = 4 * GRACE);
    let begin = Instant::now();
    let token = |ttl: i64| sign(&json!({"sub": "1", "exp": in_seconds(ttl)}));
    let grant = |ttl: i64| {
        let claims = json!({"sub": "1", "channel": "news:b", "exp": in_seconds(ttl)});
        json!({"channel": "news:b", "token": sign(&claims)})
    };
    let connect = |token: String| {
        let mut client = server.stranger();
        client.peer.stream.set_read_timeout(Some(2 * GRACE)).unwrap();
        client.call("connect", &json!({"token": token}));
        client.subscribe("news:a");
        client.call("subscribe", &grant(2));
        client
    };
    let [mut idle, mut loses_one, mut renewed] =
        [connect(token(2)), connect(token(600)), connect(token(2))];
    let refreshed = renewed.call("refresh", &json!({"token": token(600)}));
    assert_eq!(refreshed["expires"], true);
    assert!((598..=600).contains(&refreshed["ttl"].as_u64().unwrap()), "{refreshed}");
    let refreshed = renewed.call("sub_refresh", &grant(600));
    assert!((598..=600).contains(&refreshed["ttl"].as_u64().unwrap()), "{refreshed}");

    let unsubscribe = json!({"code": 2501, "reason": "subscription expired"});
    let ended = json!({"channel": "news:b", "unsubscribe": unsubscribe});
    assert_eq!(loses_one.push(), ended);
    assert_eq!(idle.peer.skip_to_close(), (3005, "expired".into()));
    assert!(begin.elapsed() >= GRACE, "{:?}", begin.elapsed());

    // It has lost that channel alone, and may have it again.
    server.publish("news:b", &json!(1));
    server.publish("news:a", &json!(2));
    loses_one.must_hear("news:a", &json!(2));
    let mut again = grant(600);
    again["recover"] = json!(true);
    assert_eq!(data(&loses_one.call("subscribe", &again)["publications"]), [json!(1)]);
    renewed.must_hear("news:b", &json!(1));
    renewed.must_hear("news:a", &json!(2));
}

#[test]
fn a_refresh_with_a_token_of_another_or_of_no_use_closes() {
    let server = TestServer::with_channels(|_| {});
    for (claims, code) in [
        (json!({"sub": "2"}), 3500),
        (json!({"sub": "1", "nbf": in_seconds(60)}), 3500),
        (json!({"sub": "1", "exp": in_seconds(-1)}), 3005),
        (Value::Null, 3500),
    ] {
        let mut client = server.client(1);
        let token = if claims.is_null() { "nonsense".into() } else { sign(&claims) };
        let command = client.command("refresh", &json!({"token": token}));
        client.peer.send_text(&command);
        assert_eq!(client.peer.read_close().0, code, "{claims}");
    }
}

#[test]
fn a_refresh_by_a_token_without_an_end_lasts_for_ever() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client_with(&json!({"sub": "1", "exp": in_seconds(60)}));
    let mut refreshed = client.call("refresh", &json!({"token": sign(&json!({"sub": "1"}))}));
    assert!(refreshed["client"].take().is_string());
    let version = concat!("fanfare ", env!("CARGO_PKG_VERSION"));
    assert_eq!(refreshed, json!({"client": null, "version": version}));
}

#[test]
fn a_refused_sub_refresh_leaves_the_subscription_as_it_is() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.subscribe("news:a");
    for (claims, code) in [
        (json!({"sub": "2", "channel": "news:a"}), 103),
        (json!({"sub": "1", "channel": "news:b"}), 103),
        (json!({"sub": "1", "channel": "news:a", "exp": in_seconds(-1)}), 109),
    ] {
        let body = json!({"channel": "news:a", "token": sign(&claims)});
        assert_eq!(client.refusal("sub_refresh", &body), code, "{claims}");
    }
    server.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
}

/// How long after its end a token may still be refreshed; the test is as slow.
const GRACE: Duration = Duration::from_secs(25);
