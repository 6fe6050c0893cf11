use std::io::Write;
use std::time::Duration;

use fanfare::{CloseReason, Config, UserId};

use crate::support::*;

#[test]
fn a_frame_without_a_mask_is_refused() {
    // RFC 6455 section 5.1
    refuses(b"\x81\x02hi", PROTOCOL_ERROR);
    refuses(b"\x89\x00", PROTOCOL_ERROR);
}

#[test]
fn a_reserved_bit_is_refused() {
    // RFC 6455 section 5.2
    for bit in [0x40, 0x20, 0x10] {
        refuses(&frame(FIN | TEXT | bit, b"hi"), PROTOCOL_ERROR);
        refuses(&frame(FIN | PING | bit, b""), PROTOCOL_ERROR);
    }
}

#[test]
fn a_reserved_opcode_is_refused() {
    // RFC 6455 section 5.2
    for opcode in (3..8).chain(11..16) {
        refuses(&frame(FIN | opcode, b""), PROTOCOL_ERROR);
    }
}

#[test]
fn a_length_that_is_not_in_its_shortest_form_is_refused() {
    // RFC 6455 section 5.2
    refuses(b"\x81\xfe\x00\x7d", PROTOCOL_ERROR);
    refuses(b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff", PROTOCOL_ERROR);
}

#[test]
fn a_length_with_its_highest_bit_set_is_refused() {
    // RFC 6455 section 5.2
    refuses(b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00", PROTOCOL_ERROR);
}

#[test]
fn a_control_frame_over_125_bytes_is_refused() {
    // RFC 6455 section 5.5
    for opcode in [CLOSE, PING, PONG] {
        refuses(&frame(FIN | opcode, &[b'x'; 126]), PROTOCOL_ERROR);
    }
}

#[test]
fn a_fragmented_control_frame_is_refused() {
    // RFC 6455 section 5.5
    for opcode in [CLOSE, PING, PONG] {
        refuses(&frame(opcode, b""), PROTOCOL_ERROR);
    }
}

#[test]
fn a_continuation_of_nothing_is_refused() {
    // RFC 6455 section 5.4
    refuses(&frame(CONTINUATION, b"hi"), PROTOCOL_ERROR);
    refuses(&frame(FIN | CONTINUATION, b"hi"), PROTOCOL_ERROR);
    let after_a_whole_message = [frame(FIN | PONG, b""), frame(FIN | CONTINUATION, b"")].concat();
    refuses(&after_a_whole_message, PROTOCOL_ERROR);
}

#[test]
fn a_message_within_another_is_refused() {
    // RFC 6455 section 5.4
    for opcode in [TEXT, BINARY] {
        refuses(&[frame(TEXT, b"a"), frame(FIN | opcode, b"b")].concat(), PROTOCOL_ERROR);
    }
}

#[test]
fn a_close_code_that_no_endpoint_may_send_is_refused() {
    // RFC 6455 sections 7.4.1 and 7.4.2
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        refuses(&frame(FIN | CLOSE, &code.to_be_bytes()), PROTOCOL_ERROR);
    }
}

#[test]
fn a_close_payload_of_one_byte_is_refused() {
    // RFC 6455 section 5.5.1
    refuses(&frame(FIN | CLOSE, b"\x03"), PROTOCOL_ERROR);
}

#[test]
fn a_close_reason_that_is_not_utf8_is_refused() {
    // RFC 6455 sections 5.5.1 and 8.1
    refuses(&frame(FIN | CLOSE, b"\x03\xe8bye\xff"), INVALID_UTF8);
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    // RFC 6455 section 8.1; in turn: no lead byte, overlong, a surrogate, too high, cut short
    let faults: [&[u8]; 5] = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"];
    for fault in faults {
        refuses(&frame(FIN | TEXT, fault), INVALID_UTF8);
    }
}

#[test]
fn bad_utf8_split_over_fragments_is_refused_before_the_message_ends() {
    // RFC 6455 sections 5.4 and 8.1: of U+D800 in three bytes the second is already wrong
    refuses(&[frame(TEXT, b"\xed"), frame(CONTINUATION, b"\xa0")].concat(), INVALID_UTF8);
    let cut_short = [frame(TEXT, b"\xe2\x82"), frame(FIN | CONTINUATION, b"")].concat();
    refuses(&cut_short, INVALID_UTF8);
}

#[test]
fn a_length_over_the_limit_is_refused_when_it_is_claimed() {
    // RFC 6455 section 7.4.1; no payload follows, so nothing but the claim can be judged
    let over = Config::default().limits.message_bytes as u64 + 1;
    refuses(&header(FIN | TEXT, over), TOO_BIG);
    refuses(&header(FIN | BINARY, (1 << 63) - 1), TOO_BIG);
    refuses(&[frame(TEXT, b"x"), header(CONTINUATION, over - 1)].concat(), TOO_BIG);
}

#[test]
fn of_a_claimed_length_only_what_came_is_held() {
    let server = TestServer::start();
    let limit = Config::default().limits.message_bytes as u64;
    let mut peers: Vec<_> = (0..20).map(|user| server.connect(user)).collect();
    for peer in &mut peers {
        peer.send(&[header(FIN | TEXT, limit), b"x".to_vec()].concat());
    }
    wait_until("a byte is held of each", || server.metric("fanfare_outbox_bytes") == 20.0);
}

#[test]
fn endless_fragments_end_at_the_limit() {
    // RFC 6455 section 5.4 bounds no message; `limits.message_bytes` does
    let fragments = [frame(TEXT, &[b'x'; 1024]), frame(CONTINUATION, &[b'x'; 1024]).repeat(64)];
    refuses(&fragments.concat(), TOO_BIG);
}

#[test]
fn a_message_never_finished_is_refused_in_time() {
    let server = TestServer::with(|config| {
        config.limits.message_timeout = Duration::from_millis(200);
    });
    let begins = [
        vec![FIN | TEXT],
        header(FIN | TEXT, 10),
        frame(TEXT, b"begun"),
        [frame(TEXT, b""), frame(FIN | PING, b"")].concat(),
    ];
    for begin in begins {
        let mut peer = server.connect(1);
        peer.send(&begin);
        assert_eq!(peer.skip_to_close(), (3501, "bad request".into()), "{begin:?}");
        assert!(peer.ends());
    }
}

#[test]
fn endless_empty_fragments_end_in_time() {
    let server = TestServer::with(|config| {
        config.limits.message_timeout = Duration::from_millis(200);
        config.limits.close_timeout = Duration::from_millis(200);
    });
    let mut peer = server.connect(1);
    peer.send(&frame(TEXT, b""));
    let mut sender = peer.stream.try_clone().unwrap();
    let flood =
        std::thread::spawn(move || while sender.write_all(&frame(CONTINUATION, b"")).is_ok() {});
    assert_eq!(peer.read_close(), (3501, "bad request".into()));
    flood.join().unwrap();
}

#[test]
fn text_after_a_close_is_not_heard() {
    // RFC 6455 section 5.5.1
    let server = TestServer::start();
    let (mut ada, mut grace) = (server.connect(1), server.connect(2));
    let late = frame(FIN | TEXT, br#"{"type":"message","body":"late"}"#);
    ada.send(&[frame(FIN | CLOSE, b"\x03\xe8"), late].concat());
    assert_eq!(ada.read_close(), (1000, String::new()));
    server.hub.broadcast("next").wait().unwrap();
    assert_eq!(grace.read_text(), "next");
}

#[test]
fn text_after_the_servers_close_is_not_heard() {
    // RFC 6455 section 5.5.1
    let server = TestServer::start();
    let (mut ada, mut grace) = (server.connect(1), server.connect(2));
    server.hub.disconnect_user(&UserId::from(1), CloseReason::NORMAL).wait().unwrap();
    assert_eq!(ada.read_close(), (1000, String::new()));
    ada.send_text(r#"{"type":"message","body":"late"}"#);
    ada.send(&frame(FIN | CLOSE, b"\x03\xe8"));
    server.hub.broadcast("next").wait().unwrap();
    assert_eq!(grace.read_text(), "next");
}

#[test]
fn a_close_is_answered_with_its_code() {
    // RFC 6455 sections 5.5.1 and 7.4.2
    let server = TestServer::start();
    for code in [1000u16, 1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
        let mut peer = server.connect(1);
        peer.send(&frame(FIN | CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat()));
        assert_eq!(peer.read_close(), (code, String::new()));
    }
    let mut peer = server.connect(1);
    peer.send(&frame(FIN | CLOSE, b""));
    let answer = peer.read_frame();
    assert_eq!((answer.opcode, answer.payload), (CLOSE, vec![]));
    assert!(peer.ends());
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    // RFC 6455 sections 5.5.2 and 5.5.3
    let server = TestServer::start();
    let mut peer = server.connect(1);
    for payload in [vec![], b"\x00\xff".to_vec(), vec![7; 125]] {
        peer.send(&frame(FIN | PING, &payload));
        assert_eq!(peer.read_frame(), Frame { opcode: PONG, payload });
    }
}

#[test]
fn a_pong_that_nobody_asked_for_is_no_fault() {
    // RFC 6455 section 5.5.3
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send(&frame(FIN | PONG, b"unasked"));
    peer.send_text(r#"{"type":"ping"}"#);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
}

#[test]
fn control_frames_may_come_between_fragments() {
    // RFC 6455 section 5.4
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send(&frame(TEXT, br#"{"type":"#));
    peer.send(&frame(FIN | PING, b"between"));
    assert_eq!(peer.read_frame(), Frame { opcode: PONG, payload: b"between".to_vec() });
    peer.send(&frame(CONTINUATION, b""));
    peer.send(&frame(FIN | CONTINUATION, br#""ping"}"#));
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
}

#[test]
fn a_character_may_be_split_over_fragments() {
    // RFC 6455 section 5.6
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let text = "{\"type\":\"message\",\"body\":\"\u{20ac}\u{1f389}\"}";
    let (last, rest) = text.as_bytes().split_last().unwrap();
    peer.send(&frame(TEXT, b""));
    for byte in rest {
        peer.send(&frame(CONTINUATION, &[*byte]));
    }
    peer.send(&frame(FIN | CONTINUATION, &[*last]));
    let expected =
        "{\"type\":\"message\",\"user_id\":1,\"name\":\"User 1\",\"body\":\"\u{20ac}\u{1f389}\"}";
    assert_eq!(peer.read_text(), expected);
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let text = br#"{"type":"message","body":"0123456789012345678901234567890123456789"}"#;
    let long = [&text[..], &[b' '; 100]].concat();
    for byte in [frame(FIN | PING, b"1"), frame(FIN | TEXT, &long)].concat() {
        peer.send(&[byte]);
    }
    assert_eq!(peer.read_frame(), Frame { opcode: PONG, payload: b"1".to_vec() });
    assert!(peer.read_text().contains("0123456789"));
}

#[test]
fn many_frames_in_one_segment_are_all_answered() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send(&frame(FIN | TEXT, br#"{"type":"ping"}"#).repeat(1000));
    for _ in 0..1000 {
        assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    }
}

#[test]
fn a_message_at_the_limit_arrives() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let limit = Config::default().limits.message_bytes;
    let padding = "x".repeat(limit - r#"{"type":"message","body":""}"#.len());
    peer.send_text(&format!(r#"{{"type":"message","body":"{padding}"}}"#));
    assert!(peer.read_text().ends_with(&format!(r#""body":"{padding}"}}"#)));
}

#[test]
fn the_close_is_seen_by_a_peer_that_writes_ten_mebibytes_first() {
    // RFC 6455 section 7.1.1: a reset would take the Close with it
    let server = TestServer::start();
    let over = header(FIN | TEXT, 1 << 40);
    let close = frame(FIN | CLOSE, b"\x03\xe8");
    for (sent, code) in [(b"\x81\x00".to_vec(), 1002), (over, 1009), (close, 1000)] {
        let mut peer = server.connect(1);
        peer.send(&sent);
        peer.send(&vec![0; 10 << 20]);
        assert_eq!(peer.read_close().0, code);
    }
}

#[test]
fn a_peer_that_goes_without_a_close_is_gone() {
    // RFC 6455 section 7.1.5
    let server = TestServer::start();
    let peer = server.connect(1);
    peer.shut_down_writing();
    wait_until("the connection is gone", || server.hub.connections() == 0);
    wait_until("it is counted", || server.metric(r#"fanfare_closes_total{code="1006"}"#) == 1.0);
}

/// Sends bytes on a fresh connection, which must be answered with this Close, then end in order.
fn refuses(bytes: &[u8], close: (u16, &str)) {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send(bytes);
    let (code, reason) = peer.skip_to_close();
    assert_eq!((code, reason.as_str()), close, "{bytes:02x?}");
    assert!(peer.ends(), "nothing may follow a Close (RFC 6455 section 5.5.1)");
    assert_eq!(server.hub.connections(), 0);
}

const PROTOCOL_ERROR: (u16, &str) = (1002, "protocol error");
const INVALID_UTF8: (u16, &str) = (1007, "invalid utf-8");
const TOO_BIG: (u16, &str) = (1009, "message too big");
