use fanfare::config::{Anonymous, Publish, Recovery, Subscribe, Switch};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn a_bad_token_closes_with_3500_and_is_counted_by_its_reason() {
    let server = TestServer::with_channels(|_| {});
    let under = |algorithm, secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), &json!({"sub": "1"}), &key).unwrap()
    };
    for (reason, token) in [
        ("missing", String::new()),
        ("malformed", "nonsense".into()),
        ("signature", under(Algorithm::HS256, "another secret of thirty-two bytes")),
        ("algorithm", under(Algorithm::HS512, SECRET)),
        ("not_yet_valid", sign(&json!({"sub": "1", "nbf": in_seconds(60)}))),
        ("expiry", sign(&json!({"sub": "1", "exp": "tomorrow"}))),
        ("subject", sign(&json!({"sub": 1.5}))),
        ("malformed", sign(&json!({"sub": "1", "channels": "news:a"}))),
    ] {
        let series = format!(r#"fanfare_handshake_failures_total{{reason="{reason}"}}"#);
        let before = server.metric(&series);
        let mut client = server.stranger();
        let command = client.command("connect", &json!({"token": token}));
        client.peer.send_text(&command);
        assert_eq!(client.peer.read_close(), (3500, "invalid token".into()), "{reason}");
        assert_eq!(server.metric(&series), before + 1.0, "{reason}");
    }
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn channels_of_the_token_are_subscribed_to_by_the_server() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "private", |private| {
            private.subscribe = Subscribe::Token;
            private.publish = Publish::Token;
        });
    });
    let mut client = server.stranger();
    let token = sign(&json!({
        "sub": "1",
        "channels": ["news:a"],
        "subs": {"private:b": {"data": {"welcome": true}, "allow": ["pub"]}},
    }));
    let mut connected = client.call("connect", &json!({"token": token}));
    let subs = connected["subs"].take();
    assert_eq!(subs["private:b"], json!({"data": {"welcome": true}}));
    assert_eq!(
        (&subs["news:a"]["recoverable"], &subs["news:a"]["positioned"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(client.refusal("subscribe", &json!({"channel": "news:a"})), 105);
    server.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    client.call("publish", &json!({"channel": "private:b", "data": 2}));
    client.must_hear("private:b", &json!(2));
}

#[test]
fn a_token_that_names_an_unknown_namespace_connects_nobody() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.stranger();
    let token = sign(&json!({"sub": "1", "channels": ["news:a", "nowhere:a"]}));
    assert_eq!(client.refusal("connect", &json!({"token": token})), 102);
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn a_subscription_token_opens_its_channel_to_its_user() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "private", |private| {
            private.subscribe = Subscribe::Token;
            private.publish = Publish::Token;
            private.presence = Switch::On;
        });
    });
    let grant = |more: Value| {
        let mut claims = json!({"sub": "1", "channel": "private:a"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"channel": "private:a", "token": sign(&claims)})
    };
    let publish = json!({"channel": "private:a", "data": 1});
    let mut reads = server.client(1);
    let subscribed = reads.call("subscribe", &grant(json!({"info": {"seat": 7}})));
    assert_eq!(subscribed, json!({}));
    assert_eq!(reads.refusal("publish", &publish), 103);
    let mut writes = server.client(1);
    let subscribed =
        writes.call("subscribe", &grant(json!({"allow": ["pub"], "exp": in_seconds(60)})));
    assert_eq!(subscribed["expires"], true);
    assert!((58..=60).contains(&subscribed["ttl"].as_u64().unwrap()), "{subscribed}");
    writes.call("publish", &publish);
    reads.must_hear("private:a", &json!(1));
    let presence = reads.call("presence", &json!({"channel": "private:a"}));
    let seats = presence["presence"].as_object().unwrap().values().map(|info| &info["chan_info"]);
    assert_eq!(seats.filter(|info| **info == json!({"seat": 7})).count(), 1, "{presence}");
}

#[test]
fn who_publishes_is_named_with_what_its_tokens_say_of_it() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.stranger();
    let token = sign(&json!({"sub": "42", "info": {"name": "Ada"}}));
    let connected = client.call("connect", &json!({"token": token}));
    let grant = sign(&json!({"sub": "42", "channel": "news:a", "info": [1]}));
    client.call("subscribe", &json!({"channel": "news:a", "token": grant}));
    client.call("publish", &json!({"channel": "news:a", "data": {"a": 1}}));
    let info = json!({
        "user": "42", "client": connected["client"], "conn_info": {"name": "Ada"}, "chan_info": [1],
    });
    let publication = json!({"data": {"a": 1}, "info": info, "offset": 1});
    assert_eq!(client.push(), json!({"channel": "news:a", "pub": publication}));
    // History remembers it too.
    let history = client.call("history", &json!({"channel": "news:a", "limit": 1}));
    assert_eq!(history["publications"], json!([publication]));
}

#[test]
fn those_without_a_token_may_read_where_it_is_allowed_and_publish_nowhere() {
    let server = TestServer::with_channels(|config| {
        config.auth.anonymous = Anonymous::Read;
        namespace(config, "public", |public| public.anonymous = Switch::On);
    });
    let mut client = server.stranger();
    let connected = client.call("connect", &json!({}));
    assert_eq!(connected.get("expires"), None, "{connected}");
    client.subscribe("public:a");
    assert_eq!(client.refusal("subscribe", &json!({"channel": "open:a"})), 103);
    assert_eq!(client.refusal("subscribe", &json!({"channel": "public:a#1"})), 103);
    assert_eq!(client.refusal("publish", &json!({"channel": "public:a", "data": 1})), 103);
    server.publish("public:a", &json!(1));
    client.must_hear("public:a", &json!(1));
    // A token that is there must be in order.
    let mut bad = server.stranger();
    let command = bad.command("connect", &json!({"token": "nonsense"}));
    bad.peer.send_text(&command);
    assert_eq!(bad.peer.read_close().0, 3500);
}

#[test]
fn each_user_has_a_channel_of_its_own() {
    let server = TestServer::with_channels(|config| {
        config.auth.personal_channel = Switch::On;
        config.auth.personal_namespace = "own".to_owned();
        namespace(config, "own", |own| {
            own.subscribe = Subscribe::Named;
            own.history_size = 10;
            own.recovery = Recovery::Stream;
        });
    });
    let mut client = server.stranger();
    let token = sign(&json!({"sub": "42"}));
    let connected = client.call("connect", &json!({"token": token}));
    let own = connected["subs"]["own:#42"].clone();
    assert_eq!(own["recoverable"], true, "{connected}");
    server.publish("own:#42", &json!("for you"));
    server.publish("own:#43", &json!("for another"));
    client.must_hear("own:#42", &json!("for you"));
    assert_eq!(client.refusal("subscribe", &json!({"channel": "own:#43"})), 103);
    drop(client);
    server.publish("own:#42", &json!("missed"));
    let was = json!({"recover": true, "offset": 1, "epoch": own["epoch"]});
    let back = json!({"token": token, "subs": {"own:#42": was}});
    let connected = server.stranger().call("connect", &back);
    assert_eq!(data(&connected["subs"]["own:#42"]["publications"]), [json!("missed")]);
}

#[test]
fn names_after_a_hash_are_those_who_may_subscribe() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "named", |named| named.subscribe = Subscribe::Named);
    });
    let mut client = server.client(1);
    for channel in ["named:#1", "named:talk#2,1", "open:talk#1"] {
        client.subscribe(channel);
    }
    for channel in ["named:talk#21", "named:1#2", "open:talk#2,11"] {
        assert_eq!(client.refusal("subscribe", &json!({"channel": channel})), 103, "{channel}");
    }
}
