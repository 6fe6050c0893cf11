use crate::support::*;

#[test]
fn a_text_message_is_broadcast_to_its_sender_too() {
    let server = TestServer::start();
    let (mut ada, mut grace) = (server.connect(1), server.connect(2));
    ada.send_text(r#"{"type":"message","body":"hi"}"#);
    let expected = r#"{"type":"message","user_id":1,"name":"User 1","body":"hi"}"#;
    assert_eq!(ada.read_text(), expected);
    assert_eq!(grace.read_text(), expected);
}
