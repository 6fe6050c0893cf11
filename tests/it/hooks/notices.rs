use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanfare::config::HookCall::{Channels, Users};
use serde_json::{Value, json};

use super::receiver::*;
use crate::client::*;
use crate::support::*;

/// The next so many notices, without their times, which must come by number from `first`.
fn notices(app: &Receiver, first: u64, count: usize) -> Vec<Value> {
    let mut notices: Vec<Value> = Vec::new();
    while notices.len() < count {
        let mut post = app.post();
        assert!(post["call"] == "notices" && post["node"].as_str().unwrap().len() == 16, "{post}");
        notices.extend(post["notices"].as_array_mut().unwrap().iter_mut().map(Value::take));
    }
    for (notice, number) in notices.iter_mut().zip(first..) {
        let at = notice["at"].take().as_i64().unwrap();
        assert!((at / 1000 - in_seconds(0)).abs() < 60, "{at}");
        assert_eq!(notice["number"].take(), number);
    }
    let strip = |notice: &Value| match (&notice["channel"], &notice["user"]) {
        (Value::Null, user) => json!([notice["notice"], user]),
        (channel, _) => json!([notice["notice"], channel]),
    };
    notices.iter().map(strip).collect()
}

#[test]
fn a_channel_is_occupied_by_its_first_subscriber_and_vacated_by_its_last() {
    let app = Receiver::agreeing();
    let server = server(app.address, &[Channels], |_| {});
    let (mut first, mut second) = (server.client(1), server.client(2));
    first.subscribe("open:a");
    second.subscribe("open:a");
    second.subscribe("open:b");
    first.call("unsubscribe", &json!({"channel": "open:a"}));
    drop(second);
    let mut told = notices(&app, 1, 4);
    // Which of its channels a connection leaves first is open.
    told[2..].sort_by_key(ToString::to_string);
    let expected = json!([
        ["channel_occupied", "open:a"],
        ["channel_occupied", "open:b"],
        ["channel_vacated", "open:a"],
        ["channel_vacated", "open:b"],
    ]);
    assert_eq!(json!(told), expected);
}

#[test]
fn a_user_joins_once_and_leaves_after_its_linger() {
    let app = Receiver::agreeing();
    let server =
        server(app.address, &[Users], |config| config.chat.linger = Duration::from_millis(50));
    let tabs = (server.connect(42), server.client(42));
    assert_eq!(notices(&app, 1, 1), [json!(["user_joined", "42"])]);
    drop(tabs);
    assert_eq!(notices(&app, 2, 1), [json!(["user_left", "42"])]);
}

#[test]
fn a_reload_within_the_linger_is_no_leave() {
    let app = Receiver::agreeing();
    let server =
        server(app.address, &[Users], |config| config.chat.linger = Duration::from_secs(60));
    drop(server.connect(42));
    wait_until("the tab is gone", || server.hub.connections() == 0);
    let _tab = server.connect(42);
    let _other = server.connect(43);
    let told = notices(&app, 1, 2);
    assert_eq!(told, [json!(["user_joined", "42"]), json!(["user_joined", "43"])]);
}

#[test]
fn what_is_not_taken_comes_again_in_order_and_first() {
    let tries = AtomicUsize::new(0);
    let app = Receiver::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::Status(503),
        _ => yes(),
    });
    let server = server(app.address, &[Channels], |_| {});
    let mut client = server.client(42);
    client.subscribe("open:a");
    let first = app.post();
    client.subscribe("open:b");
    let second = app.post();
    assert_eq!(first["notices"][0], second["notices"][0]);
    let told = notices(&app, 1, 2);
    assert_eq!(
        told,
        [json!(["channel_occupied", "open:a"]), json!(["channel_occupied", "open:b"])]
    );
    assert_eq!(server.metric("fanfare_hook_failures_total{reason=\"status\"}"), 2.0);
}

#[test]
fn of_too_many_that_wait_the_oldest_are_dropped_and_counted() {
    let address = Receiver::agreeing().address;
    let server = server(address, &[Channels], |config| config.hook.queue = 3);
    let mut client = server.client(42);
    for name in ["a", "b", "c", "d", "e"] {
        client.subscribe(&format!("open:{name}"));
    }
    assert_eq!(server.metric("fanfare_hook_notices_dropped_total"), 2.0);
    assert_eq!(server.metric("fanfare_hook_notices"), 3.0);
    // It comes back at the same address.
    let app = Receiver::start_at(address, |_| yes());
    let told = notices(&app, 3, 3);
    assert_eq!(told[0], json!(["channel_occupied", "open:c"]));
    wait_until("none waits", || server.metric("fanfare_hook_notices") == 0.0);
}

#[test]
fn a_drain_tells_what_it_can() {
    let app = Receiver::agreeing();
    let mut server = server(app.address, &[Channels], |_| {});
    let mut client = server.client(42);
    client.subscribe("open:a");
    assert_eq!(notices(&app, 1, 1), [json!(["channel_occupied", "open:a"])]);
    server.shut_down();
    client.peer.skip_to_close();
    drop(client);
    server.join();
    assert_eq!(notices(&app, 2, 1), [json!(["channel_vacated", "open:a"])]);
}
