use fanfare::config::{Namespace, Switch};
use serde_json::json;

use crate::api_publish::{client, error, ok, remembering, subscribed};
use crate::support::*;

#[test]
fn presence_is_who_is_subscribed() {
    let server = TestServer::with(|config| config.channel.presence = Switch::On);
    let (_one, first) = subscribed(&server, "news");
    let (_other, second) = client(&server, 42);
    let body = format!(
        r#"{{"user":"42","channel":"news","client":"{second}","info":{{"a":
            1}},"b64info":""}}"#
    );
    ok(&server, "subscribe", &body);
    let presence = ok(&server, "presence", r#"{"channel":"news"}"#);
    assert_eq!(
        presence,
        json!({"presence": {
            first.clone(): {"user": "42", "client": first},
            second.clone(): {"user": "42", "client": second, "chan_info": {"a": 1}},
        }})
    );
    let stats = ok(&server, "presence_stats", r#"{"channel":"news"}"#);
    assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
    let nobody = r#"{"channel":"elsewhere"}"#;
    assert_eq!(ok(&server, "presence", nobody), json!({"presence": {}}));
    let stats = ok(&server, "presence_stats", nobody);
    assert_eq!(stats, json!({"num_clients": 0, "num_users": 0}));
}

#[test]
fn history_is_read_in_pages_either_way() {
    let server = remembering();
    for i in 1..=5 {
        ok(&server, "publish", &format!(r#"{{"channel":"news","data":{i}}}"#));
    }
    let offsets = |rest: &str| {
        let page = ok(&server, "history", &format!(r#"{{"channel":"news"{rest}}}"#));
        assert_eq!(page["offset"], 5);
        let publications = page["publications"].as_array().unwrap().clone();
        publications.iter().map(|it| it["offset"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let epoch = ok(&server, "history", r#"{"channel":"news"}"#)["epoch"].clone();
    let since = |offset| format!(r#","since":{{"offset":{offset},"epoch":{epoch}}}"#);
    assert_eq!(offsets(""), [0; 0]);
    assert_eq!(offsets(r#","limit":null"#), [0; 0]);
    assert_eq!(offsets(r#","limit":2"#), [1, 2]);
    assert_eq!(offsets(r#","limit":-1"#), [1, 2, 3, 4, 5]);
    assert_eq!(offsets(r#","limit":2,"reverse":true"#), [5, 4]);
    assert_eq!(offsets(&format!(r#","limit":2{}"#, since(2))), [3, 4]);
    assert_eq!(offsets(&format!(r#","limit":9,"reverse":true{}"#, since(3))), [2, 1]);
    let other = r#"{"channel":"news","limit":9,"since":{"offset":2,"epoch":"other"}}"#;
    assert_eq!(error(&server, "history", other), 112);
    let ahead = format!(r#"{{"channel":"news","limit":9{}}}"#, since(6));
    assert_eq!(error(&server, "history", &ahead), 112);
    let unknown = ok(&server, "history", r#"{"channel":"elsewhere","limit":9}"#);
    assert_eq!((&unknown["offset"], &unknown["publications"]), (&json!(0), &json!([])));
}

#[test]
fn a_history_that_is_removed_leaves_its_position() {
    let server = remembering();
    ok(&server, "publish", r#"{"channel":"news","data":1}"#);
    assert_eq!(ok(&server, "history_remove", r#"{"channel":"news"}"#), json!({}));
    let page = ok(&server, "history", r#"{"channel":"news","limit":9}"#);
    assert_eq!((&page["offset"], &page["publications"]), (&json!(1), &json!([])));
    assert_eq!(ok(&server, "history_remove", r#"{"channel":"elsewhere"}"#), json!({}));
}

#[test]
fn channels_with_subscribers_are_found_by_pattern() {
    let server = TestServer::with(|config| {
        config.namespaces.insert("a".to_owned(), Namespace::default());
        config.channel.history_size = 1;
    });
    let (_one, client) = subscribed(&server, "news");
    for channel in ["a:one", "a:two", "a:\\\"/"] {
        let body = format!(r#"{{"user":42,"channel":"{channel}","client":"{client}"}}"#);
        ok(&server, "subscribe", &body);
    }
    let _other = subscribed(&server, "news");
    ok(&server, "publish", r#"{"channel":"remembered","data":1}"#);
    let all = json!({"news": {"num_clients": 2}, "a:one": {"num_clients": 1},
        "a:two": {"num_clients": 1}, "a:\"/": {"num_clients": 1}});
    for body in ["{}", r#"{"pattern":""}"#, r#"{"pattern":"*"}"#] {
        assert_eq!(ok(&server, "channels", body)["channels"], all, "{body}");
    }
    for (pattern, count) in [("a:*", 3), ("a:t?o", 1), ("{news,a:one}", 2), ("[!a]*", 1), ("x", 0)]
    {
        let found = ok(&server, "channels", &format!(r#"{{"pattern":"{pattern}"}}"#));
        assert_eq!(found["channels"].as_object().unwrap().len(), count, "{pattern}");
    }
    assert_eq!(error(&server, "channels", r#"{"pattern":"["}"#), 107);
    let node = ok(&server, "info", "{}")["nodes"][0].clone();
    assert_eq!((&node["num_subs"], &node["num_channels"]), (&json!(5), &json!(5)));
}

#[test]
fn what_a_namespace_has_not_is_error_108_and_what_is_no_channel_102_or_107() {
    let server = TestServer::start();
    let long = "x".repeat(256);
    for method in ["presence", "presence_stats", "history", "history_remove"] {
        for (channel, code) in
            [("news", 108), ("nowhere:news", 102), ("", 107), ("a\\n", 107), (&long, 107)]
        {
            let body = format!(r#"{{"channel":"{channel}"}}"#);
            assert_eq!(error(&server, method, &body), code, "{method} {channel}");
        }
        assert_eq!(error(&server, method, "{}"), 107, "{method}");
        assert_eq!(error(&server, method, r#"{"channel":1}"#), 107, "{method}");
        assert_eq!(server.api(method, "[]").0, 400, "{method}");
    }
}
