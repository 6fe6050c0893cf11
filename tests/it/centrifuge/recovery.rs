use std::time::Duration;

use fanfare::config::Recovery;
use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn who_comes_back_gets_all_it_missed_and_then_what_is_new() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client(1);
    let mut entered = client.subscribe("news:a");
    let epoch = entered["epoch"].take();
    let expected = json!({"recoverable": true, "positioned": true, "epoch": null});
    assert_eq!(entered, expected);
    server.publish("news:a", &json!(1));
    client.must_hear("news:a", &json!(1));
    drop(client);
    for i in 2..=4 {
        server.publish("news:a", &json!(i));
    }
    let mut client = server.client(1);
    let entered = client.recover("news:a", 1, &epoch);
    let missed: Vec<_> = (2..=4).map(|i| json!({"data": i, "offset": i})).collect();
    let expected = json!({
        "recoverable": true, "positioned": true, "epoch": epoch, "offset": 4,
        "was_recovering": true, "recovered": true, "publications": missed,
    });
    assert_eq!(entered, expected);
    server.publish("news:a", &json!(5));
    let push = json!({"channel": "news:a", "pub": {"data": 5, "offset": 5}});
    assert_eq!(client.push(), push);
}

#[test]
fn who_missed_nothing_recovers_nothing_and_any_epoch_is_as_good_as_none() {
    let server = TestServer::with_channels(|_| {});
    server.publish("news:a", &json!(1));
    for epoch in [epoch_of(&server, "news:a"), json!("")] {
        let entered = server.client(1).recover("news:a", 1, &epoch);
        assert_eq!(
            (&entered["was_recovering"], &entered["recovered"]),
            (&json!(true), &json!(true))
        );
        assert_eq!((data(&entered["publications"]).len(), &entered["offset"]), (0, &json!(1)));
    }
}

#[test]
fn what_is_not_whole_is_not_recovered_at_all() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "short", |short| {
            short.history_size = 3;
            short.recovery = Recovery::Stream;
        });
    });
    for i in 1..=5 {
        server.publish("short:a", &json!(i));
    }
    for i in 1..=301 {
        server.publish("news:many", &json!(i));
    }
    let (short, many) = (epoch_of(&server, "short:a"), epoch_of(&server, "news:many"));
    let entered = server.client(1).recover("short:a", 2, &short);
    assert_eq!(data(&entered["publications"]), [3, 4, 5].map(|i| json!(i)));
    let entered = server.client(1).recover("news:many", 1, &many);
    assert_eq!(data(&entered["publications"]).len(), 300);
    // Each publishes one more.
    for (what, channel, offset, epoch, top) in [
        ("gone from history", "short:a", 1, &short, 5),
        ("of another stream", "short:a", 6, &json!("other"), 6),
        ("of the future", "short:a", 8, &short, 7),
        ("over 300", "news:many", 0, &many, 301),
    ] {
        must_not_recover(&server, what, channel, offset, epoch, top);
    }
}

#[test]
fn what_is_too_old_is_not_recovered() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "brief", |brief| {
            brief.history_size = 1000;
            brief.history_ttl = Duration::from_millis(100);
            brief.recovery = Recovery::Stream;
        });
    });
    let mut stays = server.client(1);
    let epoch = stays.subscribe("brief:a")["epoch"].take();
    let mut published = 0;
    wait_until("the first is forgotten", || {
        server.publish("brief:a", &json!(published));
        published += 1;
        let history = stays.call("history", &json!({"channel": "brief:a", "limit": -1}));
        data(&history["publications"])[0] != json!(0)
    });
    must_not_recover(&server, "too old", "brief:a", 0, &epoch, published);
}

#[test]
fn what_would_not_fit_an_outbox_is_not_recovered() {
    let server = TestServer::with_channels(|config| {
        config.limits.message_bytes = 16 << 10;
        config.limits.outbox_bytes = 64 << 10;
    });
    let text = json!("x".repeat(10 << 10));
    for _ in 0..5 {
        server.publish("news:a", &text);
    }
    let epoch = epoch_of(&server, "news:a");
    let entered = server.client(1).recover("news:a", 3, &epoch);
    assert_eq!(data(&entered["publications"]).len(), 2);
    must_not_recover(&server, "too much", "news:a", 0, &epoch, 5);
}

#[test]
fn who_would_rather_have_nothing_than_a_gap_gets_112() {
    let server = TestServer::with_channels(|_| {});
    server.publish("news:a", &json!(1));
    let epoch = epoch_of(&server, "news:a");
    let mut client = server.client(1);
    let mut body =
        json!({"channel": "news:a", "recover": true, "offset": 7, "epoch": epoch, "flag": 2});
    let error = client.ask("subscribe", &body)["error"].take();
    assert_eq!(error, json!({"code": 112, "message": "unrecoverable position"}));
    server.publish("news:a", &json!(2));
    // It was not subscribed, so the next subscribe is no second one, and begins here.
    body["offset"] = json!(2);
    assert_eq!(client.call("subscribe", &body)["recovered"], true);
    server.publish("news:a", &json!(3));
    client.must_hear("news:a", &json!(3));
}

#[test]
fn a_cache_gives_its_latest_publication_alone() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "cache", |cache| {
            cache.history_size = 1;
            cache.recovery = Recovery::Cache;
        });
    });
    let entered = server.client(1).recover("cache:a", 0, &json!(""));
    assert_eq!((entered.get("publications"), entered.get("recovered")), (None, None), "{entered}");
    for i in 1..=3 {
        server.publish("cache:a", &json!(i));
    }
    let epoch = epoch_of(&server, "cache:a");
    for (offset, epoch, latest) in [(0, json!(""), 1), (9, json!("another"), 1), (3, epoch, 0)] {
        let entered = server.client(1).recover("cache:a", offset, &epoch);
        assert_eq!(data(&entered["publications"]), vec![json!(3); latest]);
        assert_eq!((&entered["recovered"], &entered["offset"]), (&json!(true), &json!(3)));
    }
    let entered = server.client(1).subscribe("cache:a");
    assert_eq!(
        (data(&entered["publications"]), &entered["recovered"]),
        (vec![json!(3)], &json!(true))
    );
    let mut client = server.stranger();
    let claims = json!({"sub": "1", "channels": ["cache:a", "cache:b"]});
    let subs = &client.call("connect", &json!({"token": sign(&claims)}))["subs"];
    assert_eq!(data(&subs["cache:a"]["publications"]), [json!(3)]);
    assert_eq!(subs["cache:b"].get("publications"), None);
}

#[test]
fn what_caches_give_to_a_connect_leaves_room_too() {
    let server = TestServer::with_channels(|config| {
        config.limits.message_bytes = 4 << 10;
        config.limits.outbox_bytes = 16 << 10;
        namespace(config, "cache", |cache| {
            cache.history_size = 1;
            cache.recovery = Recovery::Cache;
        });
    });
    let channels = ["cache:a", "cache:b", "cache:c"];
    for channel in channels {
        server.publish(channel, &json!("x".repeat(3000)));
    }
    let token = sign(&json!({"sub": "1", "channels": channels}));
    let were = channels.map(|channel| (channel.to_owned(), json!({"recover": true})));
    let were: serde_json::Map<_, _> = were.into_iter().collect();
    for subs in [json!({}), json!(were)] {
        let mut client = server.stranger();
        let subs = &client.call("connect", &json!({"token": token, "subs": subs}))["subs"];
        let given = channels.map(|channel| subs[channel].get("publications").is_some());
        assert_eq!(given, [true, true, false]);
    }
}

#[test]
fn what_a_connect_recovers_leaves_room_for_what_comes() {
    let server = TestServer::with_channels(|config| {
        config.limits.message_bytes = 4 << 10;
        config.limits.outbox_bytes = 16 << 10;
    });
    let channels = ["news:a", "news:b", "news:c"];
    let epochs = channels.map(|channel| {
        server.publish(channel, &json!("x".repeat(3000)));
        epoch_of(&server, channel)
    });
    let were = channels.iter().zip(&epochs).map(|(channel, epoch)| {
        ((*channel).to_owned(), json!({"recover": true, "offset": 0, "epoch": epoch}))
    });
    let subs: serde_json::Map<_, _> = were.collect();
    let token = sign(&json!({"sub": "1", "channels": channels}));
    let mut client = server.stranger();
    let subs = &client.call("connect", &json!({"token": token, "subs": subs}))["subs"];
    let recovered = channels.map(|channel| subs[channel]["recovered"] == true);
    assert_eq!(recovered, [true, true, false]);
    server.publish("news:c", &json!("y".repeat(3000)));
    client.must_hear("news:c", &json!("y".repeat(3000)));
}

#[test]
fn without_recovery_there_is_no_position_to_come_back_to() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "past", |past| past.history_size = 10);
    });
    for channel in ["open:a", "past:a"] {
        server.publish(channel, &json!(1));
        let entered = server.client(1).recover(channel, 0, &json!(""));
        assert_eq!(entered, json!({}), "{channel}");
    }
}

#[test]
fn subscriptions_by_the_server_are_recovered_with_the_connection() {
    let server = TestServer::with_channels(|_| {});
    let token = sign(&json!({"sub": "1", "channels": ["news:a", "news:b"]}));
    let mut client = server.stranger();
    let connected = client.call("connect", &json!({"token": token}));
    drop(client);
    server.publish("news:a", &json!(1));
    server.publish("news:b", &json!(1));
    let was = |channel: &str, offset| json!({"recover": true, "offset": offset, "epoch": connected["subs"][channel]["epoch"]});
    let subs =
        json!({"news:a": was("news:a", 0), "news:b": was("news:b", 5), "news:c": was("news:a", 0)});
    let mut client = server.stranger();
    let connected = client.call("connect", &json!({"token": token, "subs": subs}));
    assert_eq!(connected["subs"].as_object().map(|subs| subs.len()), Some(2));
    assert_eq!(data(&connected["subs"]["news:a"]["publications"]), [json!(1)]);
    assert_eq!(connected["subs"]["news:b"]["was_recovering"], true);
    assert_eq!(connected["subs"]["news:b"].get("recovered"), None);
    server.publish("news:b", &json!(2));
    client.must_hear("news:b", &json!(2));
}

/// A position that cannot be recovered is answered by the stream's own, and nothing else.
fn must_not_recover(
    server: &TestServer,
    what: &str,
    channel: &str,
    offset: u64,
    epoch: &Value,
    top: u64,
) {
    let mut client = server.client(1);
    let mut entered = client.recover(channel, offset, epoch);
    assert_eq!(entered["epoch"].take(), epoch_of(server, channel), "{what}");
    let expected = json!({
        "recoverable": true, "positioned": true, "epoch": null, "offset": top, "was_recovering": true,
    });
    assert_eq!(entered, expected, "{what}");
    server.publish(channel, &json!("next"));
    let push = client.push();
    assert_eq!((&push["pub"]["data"], &push["pub"]["offset"]), (&json!("next"), &json!(top + 1)));
}

fn epoch_of(server: &TestServer, channel: &str) -> Value {
    server.client(9).subscribe(channel)["epoch"].take()
}
