use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fanfare::UserId;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn an_invalid_token_is_told_by_a_close_and_counted_by_reason() {
    let server = TestServer::start();
    let far = seconds_from_now(3600.0);
    let good = json!({"sub": 1, "exp": far});
    let signed = |claims: Value| sign(Algorithm::HS256, SECRET, &claims);
    let part = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&good.to_string()));
    let whole = signed(good.clone());
    let signature = whole.rsplit('.').next().unwrap();
    let cases = [
        ("algorithm", sign(Algorithm::HS384, SECRET, &good)),
        ("algorithm", sign(Algorithm::HS512, SECRET, &good)),
        ("signature", sign(Algorithm::HS256, "another secret, of 32 bytes too", &good)),
        ("malformed", unsigned.clone()),
        ("malformed", unsigned + signature),
        ("malformed", "no token".to_owned()),
        ("malformed", "a.b".to_owned()),
        ("expired", signed(json!({"sub": 1, "exp": seconds_from_now(-1.0)}))),
        ("expiry", signed(json!({"sub": 1}))),
        ("expiry", signed(json!({"sub": 1, "exp": "tomorrow"}))),
        ("not_yet_valid", signed(json!({"sub": 1, "exp": far, "nbf": far}))),
        ("subject", signed(json!({"exp": far}))),
        ("subject", signed(json!({"sub": "", "exp": far}))),
        ("subject", signed(json!({"sub": 1.5, "exp": far}))),
        ("subject", signed(json!({"sub": 1_i64 << 53, "exp": far}))),
        ("subject", signed(json!({"sub": true, "exp": far}))),
        ("subject", signed(json!({"sub": null, "exp": far}))),
        ("malformed", signed(json!({"sub": [1], "exp": far}))),
        ("malformed", signed(json!({"sub": {"id": 1}, "exp": far}))),
        ("subject", signed(json!({"sub": "x".repeat(129), "exp": far}))),
        ("name", signed(json!({"sub": 1, "exp": far, "name": 7}))),
        ("name", signed(json!({"sub": 1, "exp": far, "name": "x".repeat(257)}))),
    ];
    for (reason, token) in cases {
        let series = format!(r#"fanfare_handshake_failures_total{{reason="{reason}"}}"#);
        let before = server.metric(&series);
        let mut peer = server.open_at("/ws/chat", &bearer(&token));
        assert_eq!(peer.read_close(), (1008, "Invalid token".into()), "{reason}: {token}");
        assert_eq!(server.metric(&series), before + 1.0, "{reason}: {token}");
    }
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn a_missing_token_is_told_by_a_close() {
    let server = TestServer::start();
    for path in ["/ws/chat", "/ws/chat?", "/ws/chat?token=", "/ws/chat?jwt=x"] {
        let mut peer = server.open_at(path, "");
        assert_eq!(peer.read_close(), (1008, "Invalid token".into()), "{path}");
    }
    let missing = server.metric(r#"fanfare_handshake_failures_total{reason="missing"}"#);
    assert_eq!(missing, 4.0);
}

#[test]
fn a_refused_peer_that_writes_ten_mebibytes_first_sees_why() {
    let server = TestServer::start();
    let mut peer = server.open_at("/ws/chat", "");
    peer.send(&vec![0; 10 << 20]);
    assert_eq!(peer.read_close(), (1008, "Invalid token".into()));
}

#[test]
fn a_connection_closes_when_its_token_expires() {
    let server = TestServer::with(|config| {
        config.limits.close_timeout = Duration::from_millis(400);
    });
    let expiry = seconds_from_now(0.5);
    let token = sign(Algorithm::HS256, SECRET, &json!({"sub": 1, "exp": expiry}));
    let mut peer = server.open_at("/ws/chat", &bearer(&token));
    peer.send_text(r#"{"type":"ping"}"#);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    assert_eq!(peer.read_close(), (3005, "expired".into()));
    let late = seconds_from_now(0.0) - expiry;
    assert!((0.0..2.0).contains(&late), "closed {late} s after the token expired");
}

#[test]
fn a_token_may_be_valid_from_a_time_that_has_come() {
    let server = TestServer::start();
    let claims = json!({"sub": 1, "exp": seconds_from_now(60.0), "nbf": seconds_from_now(-1.0)});
    assert_eq!(greeting(&server, &claims), (json!(1), json!("User 1")));
}

#[test]
fn an_integer_and_its_canonical_text_are_one_user() {
    let server = TestServer::start();
    let exp = seconds_from_now(60.0);
    let mut peers = Vec::new();
    for sub in [json!(42), json!("42"), json!("042"), json!("+42"), json!(" 42"), json!("ada")] {
        let token = sign(Algorithm::HS256, SECRET, &json!({"sub": sub, "exp": exp}));
        peers.push(server.open_at("/ws/chat", &bearer(&token)));
        wait_until("it is connected", || server.hub.connections() == peers.len());
    }
    assert_eq!(server.hub.user_connections(&UserId::from(42)), 2);
    assert_eq!(server.hub.user_connections(&UserId::parse("042").unwrap()), 1);
    assert_eq!(server.hub.active_users(), 5);
}

#[test]
fn a_user_goes_out_as_the_number_or_text_it_is() {
    let server = TestServer::start();
    let exp = seconds_from_now(60.0);
    let most = (1_i64 << 53) - 1;
    let longest = "\u{e9}".repeat(64);
    let cases = [
        (json!(42), json!(42)),
        (json!("42"), json!(42)),
        (json!("-7"), json!(-7)),
        (json!(most), json!(most)),
        (json!((-most).to_string()), json!(-most)),
        (json!((most + 1).to_string()), json!((most + 1).to_string())),
        (json!("042"), json!("042")),
        (json!("-0"), json!("-0")),
        (json!("a\"b\n"), json!("a\"b\n")),
        (json!(longest), json!(longest)),
    ];
    for (sub, user_id) in cases {
        let name = format!("User {}", user_id.as_str().unwrap_or(&user_id.to_string()));
        let (user, named) = greeting(&server, &json!({"sub": sub, "exp": exp}));
        assert_eq!((user, named), (user_id, json!(name)));
    }
    let named = greeting(&server, &json!({"sub": 1, "exp": exp, "name": "Ada \u{1f389}"}));
    assert_eq!(named, (json!(1), json!("Ada \u{1f389}")));
}

#[test]
fn algorithms_that_are_allowed_are_taken() {
    let server = TestServer::with(|config| config.auth.algorithms = vec![Algorithm::HS512]);
    let claims = json!({"sub": 1, "exp": seconds_from_now(60.0)});
    let mut peer = server.open_at("/ws/chat", &bearer(&sign(Algorithm::HS512, SECRET, &claims)));
    peer.send_text(r#"{"type":"ping"}"#);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    let mut peer = server.open_at("/ws/chat", &bearer(&sign(Algorithm::HS256, SECRET, &claims)));
    assert_eq!(peer.read_close().0, 1008);
}

/// User and name under which a message of the token's bearer goes out.
fn greeting(server: &TestServer, claims: &Value) -> (Value, Value) {
    let token = sign(Algorithm::HS256, SECRET, claims);
    let mut peer = server.open_at("/ws/chat", &bearer(&token));
    peer.send_text(r#"{"type":"message","body":"hi"}"#);
    let mut message: Value = serde_json::from_str(&peer.read_text()).unwrap();
    (message["user_id"].take(), message["name"].take())
}

fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn seconds_from_now(seconds: f64) -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + seconds
}
