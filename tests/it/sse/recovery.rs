use std::collections::HashMap;
use std::time::Duration;

use fanfare::Config;
use fanfare::config::Recovery;

use super::event_source::*;
use super::{open_to_all, publish};
use crate::support::*;

#[test]
fn a_peer_that_comes_back_gets_what_it_missed_in_order() {
    let server = TestServer::with(remembering);
    let mut stream = EventSource::open(&server, "?channels=news", "");
    stream.read_position();
    for number in ["1", "2", "3"] {
        publish(&server, "news", number);
    }
    let mut stream = stream.reopen(&server, "?channels=news");
    publish(&server, "news", "4");
    for number in ["1", "2", "3", "4"] {
        stream.expect("news", number);
    }
}

#[test]
fn the_position_may_stand_in_the_query_and_the_header_counts_more() {
    let server = TestServer::with(remembering);
    let mut stream = EventSource::open(&server, "?channels=news", "");
    stream.read_position();
    let first = stream.last_event_id.clone();
    publish(&server, "news", "1");
    stream.expect("news", "1");
    let second = stream.last_event_id.clone();
    publish(&server, "news", "2");
    let query = format!("?channels=news&last_event_id={first}");
    EventSource::open(&server, &query, "").expect("news", "1");
    let header = format!("last-event-id: {second}\r\n");
    EventSource::open(&server, &query, &header).expect("news", "2");
}

#[test]
fn what_is_gone_is_told_of_and_the_other_channels_are_whole() {
    let server = TestServer::with(|config| {
        remembering(config);
        config.channel.history_size = 2;
    });
    let query = "?channels=busy,calm";
    let mut stream = EventSource::open(&server, query, "");
    stream.read_position();
    publish(&server, "calm", "1");
    for number in ["1", "2", "3"] {
        publish(&server, "busy", number);
    }
    let mut stream = stream.reopen(&server, query);
    stream.expect("unrecovered", r#"{"channel":"busy"}"#);
    stream.expect("calm", "1");
    // It was told once, and goes on from there.
    let mut stream = stream.reopen(&server, query);
    publish(&server, "busy", "4");
    stream.expect("busy", "4");
}

#[test]
fn a_position_that_no_stream_of_these_gave_is_told_of() {
    let server = TestServer::with(remembering);
    publish(&server, "news", "1");
    for id in ["nonsense", "00000000:1", "a:1,b:2", "-1"] {
        let header = format!("last-event-id: {id}\r\n");
        let mut stream = EventSource::open(&server, "?channels=news", &header);
        stream.expect("unrecovered", r#"{"channel":"news"}"#);
        publish(&server, "news", "2");
        stream.expect("news", "2");
    }
}

#[test]
fn without_recovery_only_a_peer_that_missed_something_is_told() {
    let server = TestServer::with(|config| {
        remembering(config);
        config.channel.recovery = Recovery::Off;
    });
    let mut stream = EventSource::open(&server, "?channels=news", "");
    stream.read_position();
    let mut stream = stream.reopen(&server, "?channels=news");
    publish(&server, "news", "1");
    stream.expect("news", "1");
    let id = stream.last_event_id.clone();
    publish(&server, "news", "2");
    let header = format!("last-event-id: {id}\r\n");
    EventSource::open(&server, "?channels=news", &header)
        .expect("unrecovered", r#"{"channel":"news"}"#);
}

#[test]
fn what_does_not_fit_the_outbox_follows_as_it_is_taken() {
    const CHANNELS: usize = 20;
    let server = TestServer::with(|config| {
        remembering(config);
        config.limits.outbox_bytes = 160 << 10;
    });
    let names: Vec<_> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
    let query = format!("?channels={}", names.join(","));
    let mut stream = EventSource::open(&server, &query, "");
    stream.read_position();
    let id = std::mem::take(&mut stream.last_event_id);
    drop(stream);
    let long = format!("\"{}\"", "x".repeat(10 << 10));
    for name in &names {
        for _ in 0..5 {
            publish(&server, name, &long);
        }
    }
    // More than a mebibyte for an outbox of a sixth of that.
    let mut stream = EventSource::open(&server, &query, &format!("last-event-id: {id}\r\n"));
    for name in &names {
        for _ in 0..5 {
            stream.expect(name, &long);
        }
    }
    publish(&server, "c0", "1");
    publish(&server, "c19", "2");
    stream.expect("c0", "1");
    stream.expect("c19", "2");
    assert_eq!(server.metric(r#"fanfare_closes_total{code="3008"}"#), 0.0);
}

#[test]
fn one_channel_comes_once_and_in_order_however_often_its_peer_is_cut() {
    exactly_once(&["a"]);
}

#[test]
fn several_channels_come_once_and_in_order_however_often_their_peer_is_cut() {
    exactly_once(&["a", "b", "c"]);
}

/// Publishes numbers to every channel while peers read a little, are cut anywhere, and come back.
fn exactly_once(channels: &[&str]) {
    const EACH: u64 = 2000;
    let server = TestServer::with(|config| {
        remembering(config);
        config.channel.history_size = 100_000;
    });
    let query = format!("?channels={}", channels.join(","));
    let first = EventSource::open(&server, &query, "");
    let second = EventSource::open(&server, &query, "");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = server.dial();
            let numbers: Vec<_> = (1..=EACH).collect();
            // In one write, so that a turn of the pump brings several of a channel.
            for numbers in numbers.chunks(20) {
                let body =
                    |number, channel| format!(r#"{{"channel":"{channel}","data":{number}}}"#);
                let of_all = |number| channels.iter().map(move |channel| body(number, channel));
                let bodies: Vec<_> = numbers.iter().flat_map(of_all).collect();
                let posts = bodies.iter().map(|body| post("publish", API_KEY, body));
                publisher.send(posts.collect::<String>().as_bytes());
                bodies.iter().for_each(|_| assert_eq!(publisher.read_answer().0, 200));
            }
        });
        for (seed, mut stream) in [(1, first), (2, second)] {
            let (server, query) = (&server, &query);
            scope.spawn(move || {
                let mut seen: HashMap<String, u64> = HashMap::new();
                let (mut cuts, mut random) = (0, seed);
                stream.read_position();
                while seen.len() < channels.len() || seen.values().any(|seen| *seen < EACH) {
                    random = random * 48_271_u64 % 2_147_483_647;
                    // Fewer events than come in one read, so that many are cut off unread.
                    for _ in 0..=random % 50 {
                        let event = stream.next().unwrap();
                        let seen = seen.entry(event.name).or_default();
                        *seen += 1;
                        assert_eq!(event.data, seen.to_string());
                        if *seen == EACH {
                            break;
                        }
                    }
                    stream = stream.reopen(server, query);
                    cuts += 1;
                }
                assert!(cuts > 20, "{cuts} cuts");
            });
        }
    });
}

/// Channels for everyone, that remember and recover.
fn remembering(config: &mut Config) {
    open_to_all(config);
    config.channel.history_size = 1000;
    config.channel.history_ttl = Duration::from_secs(60);
    config.channel.recovery = Recovery::Stream;
}
