use serde_json::json;

use crate::api_publish::{batch, client, error, remembering, subscribed};
use crate::support::*;

#[test]
fn replies_come_in_order_each_under_its_method_or_as_its_error() {
    let server = remembering();
    let replies = batch(
        &server,
        r#"{"commands":[
            {"publish":{"channel":"news","data":1}},
            {"publish":{"channel":"nowhere:news","data":1}},
            {"nonsense":{}},
            {"history":{"channel":"plain:news"}},
            {"publish":{"channel":"news","data":2}},
            {"history":{"channel":"news","limit":9}},
            {"info":{}},
            {"user":{"user":42}},
            {"user":{}},
            {"broadcast":{"channels":["news"],"data":3}}
        ],"parallel":true}"#,
    );
    assert_eq!(replies[0]["publish"]["offset"], 1);
    assert_eq!(replies[1]["error"]["code"], 102);
    assert_eq!(replies[2]["error"]["code"], 104);
    assert_eq!(replies[3]["error"]["code"], 108);
    assert_eq!(replies[4]["publish"]["offset"], 2);
    assert_eq!(replies[5]["history"]["publications"].as_array().unwrap().len(), 2);
    assert!(replies[6]["info"]["nodes"].is_array());
    assert_eq!(replies[7], json!({"user": {"connections": 0}}));
    assert_eq!(replies[8]["error"]["code"], 107);
    assert_eq!(replies[9]["broadcast"]["responses"][0]["result"]["offset"], 3);
    assert_eq!(replies.len(), 10);
}

#[test]
fn a_command_that_is_none_is_an_error_and_the_others_are_carried_out() {
    let server = remembering();
    let replies = batch(
        &server,
        r#"{"commands":[1,{},{"publish":1},{"publish":["a",[],1]},{"publish":{},"info":{}},{"info":{},"info":{}},{"batch":{"commands":[]}},{"user":{"user":1}}]}"#,
    );
    for reply in &replies[..7] {
        assert_eq!(reply["error"]["code"], 107, "{reply}");
    }
    assert_eq!(replies[7]["user"]["connections"], 0);
    // Those that say so of themselves.
    assert_eq!(server.metric(r#"fanfare_api_calls_total{method="publish"}"#), 2.0);
    assert_eq!(batch(&server, r#"{"commands":[]}"#), Vec::<serde_json::Value>::new());
    assert_eq!(error(&server, "batch", "{}"), 107);
}

#[test]
fn what_a_batch_orders_is_done_before_its_next_command() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let (mut peer, _) = client(&server, 42);
    let mut commands = Vec::new();
    for i in 0..50 {
        commands.push(r#"{"subscribe":{"user":42,"channel":"news"}}"#.to_owned());
        commands.push(format!(r#"{{"publish":{{"channel":"news","data":{i}}}}}"#));
        commands.push(r#"{"unsubscribe":{"user":42,"channel":"news"}}"#.to_owned());
        commands.push(r#"{"publish":{"channel":"news","data":"unheard"}}"#.to_owned());
    }
    let replies = batch(&server, &format!(r#"{{"commands":[{}]}}"#, commands.join(",")));
    assert_eq!(replies.len(), 200);
    for i in 0..50 {
        assert!(peer.read_text().contains(r#""subscribe":{}"#));
        let push = format!(r#"{{"push":{{"channel":"news","pub":{{"data":{i}}}}}}}"#);
        assert_eq!(peer.read_text(), push);
        assert!(peer.read_text().contains(r#""unsubscribe":{"code":2000"#));
    }
}

#[test]
fn an_answer_has_an_end() {
    let server = TestServer::with(|config| {
        config.channel.history_size = 100;
        config.limits.message_bytes = 512 << 10;
        config.limits.request_bytes = 1 << 20;
        config.limits.outbox_bytes = 2 << 20;
    });
    let body = format!(r#"{{"channel":"news","data":"{}"}}"#, "x".repeat(500_000));
    for _ in 0..40 {
        assert_eq!(server.api("publish", &body).0, 200);
    }
    let page = crate::api_publish::ok(&server, "history", r#"{"channel":"news","limit":-1}"#);
    assert_eq!(page["publications"].as_array().unwrap().len(), 33);
    let history = r#"{"history":{"channel":"news","limit":20}}"#;
    let replies = batch(&server, &format!(r#"{{"commands":[{}]}}"#, [history; 4].join(",")));
    assert!(replies[1]["history"]["publications"].is_array());
    assert_eq!(replies[2]["error"]["code"], 106);
    assert_eq!(replies[3]["error"]["code"], 106);
}

#[test]
fn a_batch_of_many_has_room_for_all_of_them() {
    let server = TestServer::with(|config| {
        config.limits.ring_messages = 64;
        config.channel.history_size = 1;
    });
    let (_peer, _) = subscribed(&server, "news");
    let publish = r#"{"publish":{"channel":"news","data":1}}"#;
    let commands = vec![publish; 1000].join(",");
    let replies = batch(&server, &format!(r#"{{"commands":[{commands}]}}"#));
    assert_eq!(replies[999]["publish"]["offset"], 1000);
}
