use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn over_the_limit_of_subscriptions_a_connection_gets_106_until_it_leaves_one() {
    let server = TestServer::with_channels(|config| config.limits.subscriptions = 2);
    let mut client = server.client(1);
    client.subscribe("open:a");
    client.subscribe("open:b");
    let error = client.ask("subscribe", &json!({"channel": "open:c"}))["error"].take();
    assert_eq!(error, json!({"code": 106, "message": "limit exceeded"}));
    server.publish("open:a", &json!(1));
    client.must_hear("open:a", &json!(1));
    client.call("unsubscribe", &json!({"channel": "open:a"}));
    client.subscribe("open:c");
}

#[test]
fn a_token_with_more_channels_than_a_connection_takes_closes_with_3505() {
    let server = TestServer::with_channels(|config| config.limits.subscriptions = 2);
    let mut client = server.stranger();
    let token = sign(&json!({"sub": "1", "channels": ["news:a", "news:b", "news:c"]}));
    let command = client.command("connect", &json!({"token": token}));
    client.peer.send_text(&command);
    assert_eq!(client.peer.read_close(), (3505, "channel limit".into()));
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn over_the_limit_of_subscribers_a_channel_takes_no_more_until_one_leaves() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "small", |small| small.max_subscribers = 2);
    });
    let [mut first, mut second, mut third] = [1, 2, 3].map(|user| server.client(user));
    first.subscribe("small:a");
    second.subscribe("small:a");
    third.subscribe("open:a");
    assert_eq!(third.refusal("subscribe", &json!({"channel": "small:a"})), 106);
    third.subscribe("small:b");
    server.publish("small:a", &json!(1));
    second.must_hear("small:a", &json!(1));
    drop(first);
    wait_until("there is room again", || {
        third.ask("subscribe", &json!({"channel": "small:a"})).get("subscribe").is_some()
    });
    server.publish("small:a", &json!(2));
    third.must_hear("small:a", &json!(2));
}

#[test]
fn over_the_limit_of_channels_no_new_one_comes_to_be() {
    let server = TestServer::with_channels(|config| config.limits.channels = 2);
    let (mut client, mut other) = (server.client(1), server.client(2));
    client.subscribe("open:a");
    client.subscribe("news:b");
    assert_eq!(other.refusal("subscribe", &json!({"channel": "open:c"})), 106);
    other.subscribe("open:a");
    server.publish("open:a", &json!(1));
    other.must_hear("open:a", &json!(1));
    client.must_hear("open:a", &json!(1));
}

#[test]
fn a_publication_over_its_limit_is_106_and_published_to_nobody() {
    let server = TestServer::with_channels(|config| {
        namespace(config, "brief", |brief| brief.max_bytes = 10);
    });
    let mut client = server.client(1);
    client.subscribe("brief:a");
    let publish = |text: &str| json!({"channel": "brief:a", "data": text});
    assert_eq!(client.refusal("publish", &publish("123456789")), 106);
    client.call("publish", &publish("12345678"));
    client.must_hear("brief:a", &json!("12345678"));
}

#[test]
fn who_asks_faster_than_it_reads_is_answered_in_order_and_holds_nobody_up() {
    const FRAMES: usize = 20;
    const COMMANDS: usize = 100;
    let server = TestServer::with_channels(|config| {
        config.limits.message_bytes = 16 << 10;
        config.limits.outbox_bytes = 64 << 10;
    });
    let (mut flooder, mut other) = (server.client(1), server.client(2));
    flooder.subscribe("news:a");
    other.subscribe("open:a");
    for i in 0..20 {
        server.publish("news:a", &json!(format!("{i:0200}")));
        flooder.push();
    }
    let history = json!({"channel": "news:a", "limit": 100});
    let mut stream = Peer::new(flooder.peer.stream.try_clone().unwrap());
    std::thread::scope(|scope| {
        let commands: Vec<_> =
            (0..FRAMES * COMMANDS).map(|_| flooder.command("history", &history)).collect();
        scope.spawn(move || {
            for frame in commands.chunks(COMMANDS) {
                stream.send_text(&frame.join("\n"));
            }
        });
        // Eight mebibytes are asked for, and nothing is read yet.
        for i in 0..100 {
            let sent = Instant::now();
            other.call("publish", &json!({"channel": "open:a", "data": i}));
            other.must_hear("open:a", &json!(i));
            assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
        }
        let first = flooder.reply()["id"].as_u64().unwrap();
        for id in first + 1..first + (FRAMES * COMMANDS) as u64 {
            let reply = flooder.reply();
            assert_eq!(reply["id"], id);
            assert_eq!(reply["history"]["publications"].as_array().map(Vec::len), Some(20));
        }
    });
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_with_3008_and_misses_nothing_later() {
    let server = TestServer::with_channels(|config| {
        config.limits.message_bytes = 32 << 10;
        config.limits.outbox_bytes = 128 << 10;
    });
    let (mut stalled, mut fast) = (server.client(1), server.client(2));
    stalled.subscribe("news:a");
    fast.subscribe("news:a");
    let mut published = 0;
    while server.hub.connections() == 2 {
        server.publish("news:a", &json!(format!("{published} {}", "x".repeat(16 << 10))));
        fast.push();
        published += 1;
        assert!(published < 900, "14 MiB wait for a peer that may be 128 KiB behind");
    }
    let mut heard = 0;
    let close = loop {
        let frame = stalled.peer.read_frame();
        if frame.opcode == CLOSE {
            break frame.close();
        }
        heard += 1;
    };
    assert_eq!(close, (3008, "slow".into()));
    assert!((1..published).contains(&heard), "{heard} of {published}");
    let mut again = server.client(1);
    // From near the end, so that what it lacks fits its outbox.
    let entered = again.recover("news:a", published - 2, &json!(""));
    assert_eq!(
        (entered["recovered"].clone(), entered["offset"].clone()),
        (json!(true), json!(published))
    );
    let starts: Vec<_> = data(&entered["publications"]).iter().map(number).collect();
    assert_eq!(starts, [published - 2, published - 1]);
}

/// The number that a text begins with.
fn number(text: &Value) -> u64 {
    text.as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn who_is_there_is_not_told_in_more_than_half_an_outbox() {
    let server = TestServer::with_channels(|config| {
        config.limits.message_bytes = 2000;
        config.limits.outbox_bytes = 18_000;
    });
    let info = "x".repeat(1200);
    let enter = |user: usize| {
        let mut client = server.client_with(&json!({"sub": user.to_string(), "info": info}));
        client.subscribe("news:a");
        client
    };
    let mut clients: Vec<_> = (1..=6).map(enter).collect();
    let present = clients[0].call("presence", &json!({"channel": "news:a"}));
    assert_eq!(present["presence"].as_object().unwrap().len(), 6);
    clients.push(enter(7));
    assert_eq!(clients[0].refusal("presence", &json!({"channel": "news:a"})), 106);
    let stats = clients[0].call("presence_stats", &json!({"channel": "news:a"}));
    assert_eq!(stats["num_clients"], 7);
}

#[test]
fn what_a_token_says_of_a_publisher_counts_with_what_is_remembered() {
    let server = TestServer::with_channels(|_| {});
    let mut client = server.client_with(&json!({"sub": "1", "info": "x".repeat(1000)}));
    client.subscribe("news:a");
    client.call("publish", &json!({"channel": "news:a", "data": 1}));
    assert!(server.metric("fanfare_history_bytes") > 1000.0);
}
