use std::time::Duration;

use serde_json::json;

use crate::client::*;
use crate::support::*;

const BAD_REQUEST: u16 = 3501;

#[test]
fn what_is_no_command_closes_with_3501() {
    let server = TestServer::with_channels(|_| {});
    let mut bystander = server.client(2);
    bystander.subscribe("open:a");
    for frame in [
        "",
        "\n",
        " ",
        "null",
        "[]",
        "nonsense",
        "{",
        // A pong that answers no ping.
        "{}",
        "{}{}",
        r#"{"id":7}"#,
        r#"{"id":7,"ping":{}}"#,
        r#"{"id":7,"sing":{"channel":"open:a"}}"#,
        r#"{"id":7,"connect":{}}"#,
        r#"{"id":0,"unsubscribe":{"channel":"open:a"}}"#,
        r#"{"id":-7,"unsubscribe":{"channel":"open:a"}}"#,
        r#"{"id":"7","unsubscribe":{"channel":"open:a"}}"#,
        r#"{"unsubscribe":{"channel":"open:a"}}"#,
        r#"{"id":7,"unsubscribe":{"channel":7}}"#,
        r#"{"id":7,"id":8,"unsubscribe":{"channel":"open:a"}}"#,
        "{\"id\":7,\"unsubscribe\":{\"channel\":\"open:a\"}}\n\n{\"id\":8,\"rpc\":{}}",
    ] {
        let mut client = server.client(1);
        client.peer.send_text(frame);
        assert_eq!(client.peer.skip_to_close(), (BAD_REQUEST, "bad request".into()), "{frame:?}");
    }
    server.publish("open:a", &json!(1));
    bystander.must_hear("open:a", &json!(1));
    let closes = format!(r#"fanfare_closes_total{{code="{BAD_REQUEST}"}}"#);
    assert_eq!(server.metric(&closes), 20.0);
}

#[test]
fn before_connect_any_other_command_closes_with_3501() {
    let server = TestServer::with_channels(|_| {});
    for command in [
        "{}",
        r#"{"send":{"data":1}}"#,
        r#"{"id":1,"subscribe":{"channel":"open:a"}}"#,
        r#"{"id":1,"publish":{"channel":"open:a","data":1}}"#,
        r#"{"id":1,"refresh":{"token":"x"}}"#,
        r#"{"id":1,"rpc":{"method":"x"}}"#,
    ] {
        let mut client = server.stranger();
        client.peer.send_text(command);
        assert_eq!(client.peer.read_close().0, BAD_REQUEST, "{command}");
    }
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn a_binary_message_closes_with_3501() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.peer.send(&frame(FIN | BINARY, b"{}"));
    assert_eq!(client.peer.read_close().0, BAD_REQUEST);
}

#[test]
fn a_message_over_the_limit_closes_with_1009() {
    let server = TestServer::with_channels(|config| config.limits.message_bytes = 1000);
    let mut client = server.client(1);
    client.peer.send_text(&format!(r#"{{"send":{{"data":"{}"}}}}"#, "x".repeat(1000)));
    assert_eq!(client.peer.read_close(), (1009, "message too big".into()));
}

#[test]
fn who_does_not_connect_in_time_is_closed_with_3502() {
    let server = TestServer::with_channels(|config| {
        config.limits.handshake_timeout = Duration::from_millis(300);
        config.limits.close_timeout = Duration::from_millis(400);
    });
    let mut connected = server.client(1);
    connected.subscribe("open:a");
    assert_eq!(server.stranger().peer.read_close(), (3502, "stale".into()));
    // Nor is a connect that was refused enough.
    let mut refused = server.stranger();
    let expired = sign(&json!({"sub": "1", "exp": in_seconds(-1)}));
    assert_eq!(refused.refusal("connect", &json!({"token": expired})), 109);
    assert_eq!(refused.peer.read_close().0, 3502);
    server.publish("open:a", &json!(1));
    connected.must_hear("open:a", &json!(1));
}

#[test]
fn connect_and_subscribes_in_one_frame_are_answered_in_one_frame_and_in_order() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.stranger();
    let mut commands =
        vec![client.command("connect", &json!({"token": sign(&json!({"sub": "1"}))}))];
    for i in 0..100 {
        commands.push(client.command("subscribe", &json!({"channel": format!("open:{i}")})));
    }
    commands.push(client.command("subscribe", &json!({"channel": "nowhere:a"})));
    commands.push(client.command("publish", &json!({"channel": "open:7", "data": 7})));
    // One line break at the end is none too many.
    client.peer.send_text(&(commands.join("\n") + "\n"));
    let frame = client.peer.read_text();
    let ids = frame.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ids: Vec<_> = ids.map(|reply| reply["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=103).collect::<Vec<_>>());
    assert!(frame.lines().nth(101).unwrap().contains(r#""error":{"code":102"#), "{frame}");
    client.must_hear("open:7", &json!(7));
}

#[test]
fn what_stands_before_a_bad_command_is_carried_out_and_what_stands_after_is_not() {
    let server = TestServer::with_channels(|_| {});
    let mut bystander = server.client(2);
    bystander.subscribe("open:a");
    let mut client = server.client(1);
    client.subscribe("open:a");
    let publish = |data| json!({"channel": "open:a", "data": data});
    let before = client.command("publish", &publish(1));
    let after = client.command("publish", &publish(2));
    client.peer.send_text(&format!("{before}\nnonsense\n{after}"));
    assert!(client.reply().get("publish").is_some());
    assert_eq!(client.peer.skip_to_close().0, BAD_REQUEST);
    bystander.must_hear("open:a", &json!(1));
    server.publish("open:a", &json!(3));
    bystander.must_hear("open:a", &json!(3));
}

#[test]
fn line_breaks_between_tokens_do_not_break_a_push() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    client.subscribe("news:a");
    let body = "{\"channel\":\"news:a\",\"data\":{\r\n\"text\":\n\"a\\nb\"\n}}";
    assert_eq!(server.api("publish", body).0, 200);
    let expected = r#"{"push":{"channel":"news:a","pub":{"data":{"text":"a\nb"},"offset":1}}}"#;
    assert_eq!(client.peer.read_text(), expected);
}

#[test]
fn a_ping_is_an_empty_object_and_wants_one_back_in_time() {
    let server = TestServer::with_channels(|config| {
        config.heartbeat.interval = Duration::from_millis(200);
        config.heartbeat.timeout = Duration::from_millis(500);
        config.limits.close_timeout = Duration::from_millis(400);
    });
    let (mut silent, mut client) = (server.client(1), server.client(2));
    for _ in 0..5 {
        assert_eq!(client.peer.read_text(), "{}");
        client.peer.send_text("{}");
    }
    assert_eq!(silent.peer.skip_to_close(), (3012, "no pong".into()));
    // One pong answers one ping.
    client.peer.send_text("{}\n{}");
    client.peer.send_text("{}");
    assert_eq!(client.peer.skip_to_close().0, BAD_REQUEST);
}

#[test]
fn who_asks_for_pings_by_frames_is_told_of_no_others() {
    let server = TestServer::with_channels(|config| {
        config.heartbeat.interval = Duration::from_millis(200);
    });
    let path = "/connection/websocket?cf_ws_frame_ping_pong=true";
    let mut client = Client::new(server.open_at(path, ""));
    let connected = client.call("connect", &json!({"token": sign(&json!({"sub": "1"}))}));
    assert_eq!((connected.get("ping"), connected.get("pong")), (None, None), "{connected}");
    assert_eq!(client.peer.read_frame().opcode, PING);
}

#[test]
fn a_connected_client_learns_its_name_and_when_to_expect_pings() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.stranger();
    let mut connected = client.call("connect", &json!({"token": sign(&json!({"sub": "1"}))}));
    assert_eq!(connected["client"].take().as_str().unwrap().len(), 36);
    let version = concat!("fanfare ", env!("CARGO_PKG_VERSION"));
    let expected = json!({"client": null, "version": version, "ping": 25, "pong": true});
    assert_eq!(connected, expected);
    let exp = in_seconds(100);
    let connected =
        server.stranger().call("connect", &json!({"token": sign(&json!({"exp": exp}))}));
    assert_eq!(connected["expires"], true);
    assert!((98..=100).contains(&connected["ttl"].as_u64().unwrap()), "{connected}");
}
