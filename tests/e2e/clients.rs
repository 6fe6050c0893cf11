use crate::support::{Service, node, python};

#[test]
fn a_token_goes_in_query_header_or_subprotocol() {
    with_every_client("tokens");
}

#[test]
fn two_users_chat_and_every_tab_hears_it() {
    with_every_client("chat");
}

#[test]
fn a_push_reaches_every_tab_of_its_user_alone() {
    with_every_client("push");
}

#[test]
fn a_ping_is_answered() {
    with_every_client("ping");
}

#[test]
fn an_invalid_token_is_closed_with_1008() {
    with_every_client("refused");
}

#[test]
fn a_disconnected_user_sees_3503_in_every_tab() {
    with_every_client("disconnected");
}

#[test]
fn sigterm_closes_with_3001_and_exits_0() {
    for server in with_every_client("drained") {
        assert!(server.wait().success());
    }
}

/// Has PyPI's websockets, npm's ws and the WebSocket of Node.js itself play a scenario, each
/// against a server of its own.
fn with_every_client(scenario: &str) -> [Service; 3] {
    let websockets = python("chat.py", &[scenario]);
    let [ws, undici] = ["ws", "undici"].map(|library| node("chat.mjs", &[scenario, library]));
    [websockets, ws, undici].map(|client| {
        let server = Service::fanfare();
        server.run(client);
        server
    })
}
