use fanfare::UserId;
use fanfare::config::{Anonymous, Namespace, Secret, Subscribe, Switch};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::event_source::*;
use super::{open_to_all, publish};
use crate::support::*;

#[test]
fn a_token_goes_in_header_query_or_cookie() {
    let server = TestServer::with(|config| config.channel.subscribe = Subscribe::Anyone);
    let token = server.token(42);
    let query = format!("?channels=news&token={token}");
    let bearer = format!("authorization: Bearer {token}\r\n");
    let cookie = format!("cookie: a=b; fanfare_token={token}; c=d\r\n");
    for (query, header) in
        [(&*query, ""), ("?channels=news", &*bearer), ("?channels=news", &*cookie)]
    {
        let mut stream = EventSource::open(&server, query, header);
        assert_eq!(server.hub.user_connections(&UserId::from(42)), 1);
        publish(&server, "news", "1");
        stream.expect("news", "1");
        drop(stream);
        wait_until("it is gone", || server.hub.connections() == 0);
    }
}

#[test]
fn without_a_valid_token_the_answer_is_401() {
    let server = TestServer::with(|config| config.channel.subscribe = Subscribe::Anyone);
    let expired = sign(&json!({"sub": "42", "exp": 1}));
    for (query, code) in [("", 101), ("&token=nonsense", 101), (&*format!("&token={expired}"), 109)]
    {
        let (status, answer) = server.request(&get(&format!("?channels=news{query}"), ""));
        assert_eq!(status, 401, "{answer}");
        assert_header(&answer, "www-authenticate: Bearer");
        assert!(answer.contains(&format!(r#"{{"error":{{"code":{code},"#)), "{answer}");
    }
    assert_eq!(server.metric(r#"fanfare_handshake_failures_total{reason="missing"}"#), 1.0);
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn one_refused_channel_refuses_all_and_is_named() {
    let server = TestServer::with(|config| {
        config.channel.subscribe = Subscribe::Anyone;
        config.limits.channel_bytes = 20;
        config.limits.subscriptions = 3;
        config.namespaces.insert("secret".into(), Namespace::default());
    });
    let bearer = format!("authorization: Bearer {}\r\n", server.token(42));
    for (query, status, code, named) in [
        ("?channels=news,secret:a", 403, 103, "secret:a"),
        ("?channels=news,none:a", 404, 102, "none:a"),
        ("?channels=news,dm%2343", 403, 103, "dm#43"),
        ("?channels=news,a%0Ab", 400, 107, "a\\n"),
        ("?channels=news,", 400, 107, ""),
        ("?channels=news,a-name-that-is-too-long", 400, 107, "a-name-that-is-too-long"),
        ("?channels=news,news", 400, 107, "news"),
        ("?channels=news,disconnect", 400, 107, "disconnect"),
        ("?channels=a,b,c,d", 400, 107, "at most 3 channels"),
    ] {
        let (got, answer) = server.request(&get(query, &bearer));
        assert_eq!(got, status, "{query}: {answer}");
        assert!(answer.contains(&format!(r#"{{"error":{{"code":{code},"#)), "{answer}");
        assert!(answer.contains(named), "{answer}");
    }
    assert_eq!(server.metric("fanfare_subscriptions"), 0.0);
    assert_eq!(server.metric("fanfare_closes_total"), 0.0);
}

#[test]
fn a_full_channel_refuses_before_the_stream_begins() {
    let server = TestServer::with(|config| {
        open_to_all(config);
        config.namespaces.insert("few".into(), Namespace::default());
        let few = config.namespaces.get_mut("few").unwrap();
        (few.subscribe, few.anonymous, few.max_subscribers) = (Subscribe::Anyone, Switch::On, 1);
    });
    let _first = EventSource::open(&server, "?channels=few:a", "");
    let (status, answer) = server.request(&get("?channels=news,few:a", ""));
    assert_eq!(status, 429, "{answer}");
    assert!(answer.contains(r#""code":106"#) && answer.contains("few:a"), "{answer}");
    assert_eq!(server.metric("fanfare_subscriptions"), 1.0);
    assert_eq!(server.hub.connections(), 1);
}

#[test]
fn channels_that_the_token_names_are_let_in() {
    let server = TestServer::with(|config| {
        config.auth.personal_channel = Switch::On;
        config.namespaces.insert("secret".into(), Namespace::default());
    });
    let token = sign(&json!({
        "sub": "42", "exp": 4_000_000_000_u64, "channels": ["news"], "subs": {"secret:a": {}},
    }));
    let query = format!("?channels=news,secret:a,%2342&token={token}");
    let mut stream = EventSource::open(&server, &query, "");
    for channel in ["news", "secret:a", "#42"] {
        publish(&server, channel, "1");
        stream.expect(channel, "1");
    }
    let (status, answer) = server.request(&get(&format!("?channels=other&token={token}"), ""));
    assert_eq!(status, 403, "{answer}");
}

#[test]
fn a_name_with_a_comma_is_a_channel_of_its_own() {
    let server = TestServer::with(|config| config.channel.subscribe = Subscribe::Named);
    let query = format!("?channel=dm%2342,43&token={}", server.token(43));
    let mut stream = EventSource::open(&server, &query, "");
    publish(&server, "dm#42,43", "1");
    stream.expect("dm#42,43", "1");
}

#[test]
fn the_anonymous_read_where_the_namespace_allows_it() {
    let server = TestServer::with(|config| {
        config.auth.anonymous = Anonymous::Read;
        config.channel.subscribe = Subscribe::Anyone;
    });
    assert_eq!(server.request(&get("?channels=news", "")).0, 403);
    let (status, _) = server.request(&get("?channels=news&token=nonsense", ""));
    assert_eq!(status, 401, "a bad token is worse than none");
}

#[test]
fn a_cookie_counts_only_where_a_page_may_read() {
    let server = TestServer::with(|config| {
        config.channel.subscribe = Subscribe::Anyone;
        config.server.allowed_origins = vec!["https://app.example".into()];
    });
    let cookie = format!("cookie: fanfare_token={}\r\n", server.token(42));
    for (origin, is_exposed) in [("", false), ("http://x", false), ("https://app.example", true)] {
        let origin =
            if origin.is_empty() { String::new() } else { format!("origin: {origin}\r\n") };
        let stream = EventSource::open(&server, "?channels=news", &format!("{cookie}{origin}"));
        assert_header(&stream.head, "vary: origin");
        let allowed = "access-control-allow-origin: https://app.example\r\n";
        let credentials = "access-control-allow-credentials: true\r\n";
        assert_eq!(stream.head.contains(allowed), is_exposed, "{}", stream.head);
        assert_eq!(stream.head.contains(credentials), is_exposed, "{}", stream.head);
    }
    let (status, answer) = server
        .request(&get("?channels=news", &format!("{cookie}origin: https://evil.example\r\n")));
    assert_eq!(status, 401, "{answer}");
    assert!(!answer.contains("access-control"), "{answer}");
}

#[test]
fn a_refusal_can_be_read_by_an_allowed_page() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".into()];
    });
    let (status, answer) = server.request(&get("", "origin: https://app.example\r\n"));
    assert_eq!(status, 401);
    assert_header(&answer, "access-control-allow-origin: https://app.example");
}

#[test]
fn a_preflight_allows_what_a_stream_needs_and_nobody_else() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".into()];
    });
    let preflight = |origin: &str| {
        server.request(&format!(
            "OPTIONS /sse HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n\
             access-control-request-method: GET\r\n\
             access-control-request-headers: authorization,last-event-id\r\n\r\n"
        ))
    };
    let (status, answer) = preflight("https://app.example");
    assert_eq!(status, 204);
    assert_header(&answer, "access-control-allow-methods: GET, HEAD");
    let headers = "access-control-allow-headers: authorization, cache-control, last-event-id";
    assert_header(&answer, headers);
    assert_header(&answer, "access-control-allow-credentials: true");
    let (status, answer) = preflight("https://evil.example");
    assert_eq!(status, 204);
    assert!(!answer.contains("access-control"), "{answer}");
}

#[test]
fn head_says_whether_a_stream_would_come() {
    let server = TestServer::with(|config| config.channel.subscribe = Subscribe::Anyone);
    let head = |query: &str| {
        let mut peer = server.dial();
        peer.send(format!("HEAD /sse{query} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        let head = peer.read_head();
        peer.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(peer.read_answer().0, 200, "HTTP goes on");
        head
    };
    assert!(head("?channels=news").starts_with("HTTP/1.1 401 "));
    let head = head(&format!("?channels=news&token={}", server.token(42)));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_header(&head, "content-type: text/event-stream");
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn other_methods_are_told_which() {
    let server = TestServer::start();
    let (status, answer) = server.request("POST /sse HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(status, 405);
    assert_header(&answer, "allow: GET, HEAD, OPTIONS");
}

/// A token with any claims.
fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(Secret::new(SECRET).expose());
    jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
}
