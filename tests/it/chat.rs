use crate::support::*;

#[test]
fn a_message_reaches_all_and_its_sender() {
    let server = TestServer::start();
    let (mut ada, mut grace) = (server.connect(1), server.connect(2));
    ada.send_text(r#"{"type":"message","body":"hi"}"#);
    let expected = r#"{"type":"message","user_id":1,"name":"User 1","body":"hi"}"#;
    assert_eq!(ada.read_text(), expected);
    assert_eq!(grace.read_text(), expected);
}

#[test]
fn a_ping_is_answered_to_its_sender_alone() {
    let server = TestServer::start();
    let (mut ada, mut grace) = (server.connect(1), server.connect(2));
    ada.send_text(r#"{"type":"ping"}"#);
    assert_eq!(ada.read_text(), r#"{"type":"pong"}"#);
    server.hub.broadcast("next").wait().unwrap();
    assert_eq!(grace.read_text(), "next");
}

#[test]
fn a_body_goes_out_verbatim() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let bodies = [
        r#""""#,
        r#""Gr\u00fc\u00dfe \/ \ud83c\udf89""#,
        "{\"b\" : 1.0,\"a\":[ null,true ,1e400 ] ,\"b\":2}",
        "null",
        "-0.0",
        "123456789012345678901234567890",
    ];
    for body in bodies {
        peer.send_text(&format!(r#"{{ "body" : {body} , "type":"message","more":[1]}}"#));
        let expected = format!(r#"{{"type":"message","user_id":1,"name":"User 1","body":{body}}}"#);
        assert_eq!(peer.read_text(), expected);
    }
}

#[test]
fn a_missing_body_is_an_empty_text() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send_text(r#"{"type":"message"}"#);
    let expected = r#"{"type":"message","user_id":1,"name":"User 1","body":""}"#;
    assert_eq!(peer.read_text(), expected);
}

#[test]
fn an_unknown_type_is_error_104_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    for text in [r#"{"type":"dance"}"#, r#"{"type":7}"#, r#"{"type":null}"#, r#"{"body":"hi"}"#] {
        peer.send_text(text);
        let expected =
            r#"{"type":"error","code":104,"message":"unknown type; use message or ping"}"#;
        assert_eq!(peer.read_text(), expected, "{text}");
    }
    goes_on(&mut peer);
}

#[test]
fn what_is_no_json_object_is_error_107_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let texts = ["", "hello", "[1]", "7", r#"{"type":"message""#, r#"{"type":"ping"}{}"#];
    for text in texts {
        peer.send_text(text);
        let expected = r#"{"type":"error","code":107,"message":"not a JSON object"}"#;
        assert_eq!(peer.read_text(), expected, "{text}");
    }
    goes_on(&mut peer);
}

#[test]
fn binary_is_error_107_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send(&frame(FIN | BINARY, br#"{"type":"ping"}"#));
    let expected = r#"{"type":"error","code":107,"message":"binary is not understood; send text"}"#;
    assert_eq!(peer.read_text(), expected);
    goes_on(&mut peer);
}

#[test]
fn json_deeper_than_64_is_error_107_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"type":"message","body":{open}{close}}}"#)
    };
    let too_deep =
        r#"{"type":"error","code":107,"message":"JSON nests too deep; use at most 64 levels"}"#;
    for depth in [65, 5000, 30_000] {
        peer.send_text(&nested(depth));
        assert_eq!(peer.read_text(), too_deep);
    }
    peer.send_text(&nested(64));
    assert!(peer.read_text().starts_with(r#"{"type":"message""#));
}

#[test]
fn the_tenth_error_closes() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    for _ in 0..11 {
        peer.send_text("no json");
    }
    for _ in 0..10 {
        assert!(peer.read_text().contains(r#""code":107"#));
    }
    assert_eq!(peer.read_close(), (3509, "too many errors".into()));
}

#[test]
fn one_publishers_messages_keep_their_order() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let mut readers: Vec<_> = (1..5).map(|user| server.connect(user)).collect();
    let mut ada = server.connect(9);
    let message =
        |i: usize| frame(FIN | TEXT, format!(r#"{{"type":"message","body":{i}}}"#).as_bytes());
    ada.send(&(0..500).flat_map(message).collect::<Vec<u8>>());
    for reader in readers.iter_mut().chain([&mut ada]) {
        for i in 0..500 {
            let expected =
                format!(r#"{{"type":"message","user_id":9,"name":"User 9","body":{i}}}"#);
            assert_eq!(reader.read_text(), expected);
        }
    }
}

fn goes_on(peer: &mut Peer) {
    peer.send_text(r#"{"type":"ping"}"#);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
}
