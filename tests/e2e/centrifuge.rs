//! The clients of Centrifuge and Centrifugo, unchanged.

use crate::support::{Service, fanfare, node, python};

#[test]
fn clients_publish_hear_each_other_and_read_presence_and_history() {
    with_every_client("channels");
}

#[test]
fn a_refusal_costs_a_client_nothing_else() {
    with_every_client("refusals");
}

#[test]
fn who_is_cut_recovers_what_it_missed() {
    with_every_client("recovery");
}

#[test]
fn tokens_are_refreshed_on_the_live_connection() {
    with_every_client("tokens");
}

#[test]
fn who_expired_comes_back_with_a_new_token() {
    with_every_client("expiry");
}

#[test]
fn a_backend_sends_subscribes_and_unsubscribes() {
    with_every_client("backend");
}

#[test]
fn clients_know_which_close_means_come_back() {
    with_every_client("disconnects");
}

#[test]
fn cent_calls_every_method() {
    server().run(python("cent_methods.py", &[]));
}

/// Has npm's centrifuge, in Node.js and in Chromium, and PyPI's centrifuge-python play a scenario,
/// each against a server of its own.
fn with_every_client(scenario: &str) {
    server().run(node("centrifuge.mjs", &[scenario]));
    server().run(node("centrifuge.mjs", &[scenario, "/usr/bin/chromium"]));
    server().run(python("centrifuge_scenarios.py", &[scenario]));
}

/// A server with namespaces: `news` for everyone, `private` for those with a token.
fn server() -> Service {
    let mut dev = fanfare(&["dev", "--bind", "127.0.0.1:0"]);
    dev.env("FANFARE_DRAIN_SPREAD", "100ms").env("FANFARE_LOG_FILTER", "warn");
    for (key, value) in [
        ("NEWS_HISTORY_SIZE", "100"),
        ("NEWS_RECOVERY", "stream"),
        ("NEWS_PRESENCE", "on"),
        ("NEWS_JOIN_LEAVE", "client"),
        ("NEWS_SUBSCRIBE", "anyone"),
        ("NEWS_PUBLISH", "subscribers"),
        ("PRIVATE_HISTORY_SIZE", "100"),
        ("PRIVATE_RECOVERY", "stream"),
        ("PRIVATE_SUBSCRIBE", "token"),
    ] {
        dev.env(format!("FANFARE_NAMESPACE_{key}"), value);
    }
    Service::start(dev)
}
