//! Each command, shortly, against a real server: what is counted, never how fast.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cluster;
mod server;

use std::net::TcpListener;

use fanfare::Config;
use fanfare::config::{Publish, Recovery, Subscribe};
use serde_json::{Value, json};
use server::{Server, loadtest};

#[test]
fn fanout_counts_every_delivery_of_a_chat_connection() {
    let server = Server::start(|_| ());
    let report = server.report("fanout", &["--connections", "50", "--rate", "200"]);
    // The publishing connection gets its own publishes too.
    assert_eq!(report["expected"], json!(report["published"].as_u64().unwrap() * 51));
    assert_eq!(report["received"], report["expected"]);
    assert_eq!((&report["lost"], &report["refused"]), (&json!(0), &json!(0)));
    assert_eq!((&report["ends"], &report["errors"]), (&json!({}), &json!({})));
    let payload = r#"{"type":"message","user_id":51,"name":"User 51","body":""}"#.len() + 128;
    assert_eq!(report["payload_bytes"], json!(payload));
    // A burst of 64, then 200/s for 600 ms, of which 500 ms are measured: 100 times 51.
    assert_eq!(report["published"], json!(64 + 120));
    assert_eq!(report["latency_ms"]["samples"], json!(100 * 51));
    // How much it is says nothing: threads of other tests' servers begin and end meanwhile.
    assert!(report["us_per_delivery"].is_f64());
    assert!(report["us_per_connect"].is_f64());
}

#[test]
fn fanout_counts_every_delivery_of_a_backend() {
    let server = Server::start(|_| ());
    let options = ["--connections", "20", "--rate", "200", "--publish", "http"];
    let report = server.report("fanout", &options);
    assert_eq!(report["published"], json!(64 + 120));
    assert_eq!(report["expected"], json!((64 + 120) * 20));
    assert_eq!(report["received"], report["expected"]);
}

/// The server stands for the node beside it as well.
#[test]
fn fanout_counts_deliveries_and_their_order_beside() {
    let server = Server::start(open_channels);
    let url = server.url();
    let nodes = ["--beside", &url, "--beside", &url];
    let wire = ["--connections", "10", "--rate", "200", "--protocol", "centrifuge"];
    for publish in ["http", "peer"] {
        let options = [&wire[..], &nodes, &["--publish", publish]].concat();
        let report = server.report("fanout", &options);
        assert_eq!((&report["lost"], &report["disordered"]), (&json!(0), &json!(0)), "{publish}");
        let beside = report["beside"].as_array().unwrap();
        assert_eq!(beside.len(), 2);
        for node in beside {
            let deliveries = json!((64 + 120) * 10);
            assert_eq!((&node["expected"], &node["received"]), (&deliveries, &deliveries));
            assert_eq!(node["disordered"], json!(0));
        }
    }
}

#[test]
fn fanout_flat_out_ends_and_loses_nothing() {
    let server = Server::start(|config| config.limits.outbox_bytes = 64 << 20);
    let report = server.report("fanout", &["--connections", "3", "--rate", "max"]);
    assert!(report["published"].as_u64().unwrap() > 1000);
    assert_eq!(report["lost"], json!(0));
    assert_eq!(report["offered_per_second"], Value::Null);
}

#[test]
fn floor_and_server_are_compared_by_frames_of_one_length() {
    let server = Server::start(|_| ());
    let options = ["--connections", "20", "--rate", "200", "--compare", "floor", "--rounds", "2"];
    let report = server.report("fanout", &options);
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        let (fanfare, floor) = (&round["fanfare"], &round["yardstick"]);
        assert_eq!(fanfare["payload_bytes"], floor["payload_bytes"]);
        for side in [fanfare, floor] {
            assert_eq!(side["received"], json!((64 + 120) * 21));
            assert_eq!(side["lost"], json!(0));
        }
    }
    let names: Vec<_> = report["medians"].as_array().unwrap().iter().map(|m| &m["name"]).collect();
    assert!(names.contains(&&json!("CPU a delivery, µs")), "{names:?}");
    assert!(report["medians"][0]["ratio"].as_f64().unwrap() > 0.0);
}

#[test]
fn fanout_counts_every_delivery_on_channels() {
    let server = Server::start(open_channels);
    let channels = ["--protocol", "centrifuge", "--channels", "20"];
    let spread = ["--connections", "10", "--subscriptions-per-connection", "6", "--rate", "200"];
    // 60 subscriptions of 20 channels; a publishing connection is subscribed to each as well.
    for (publish, audience) in [("http", 3), ("peer", 4)] {
        let options = [&channels[..], &spread, &["--publish", publish]].concat();
        let report = server.report("fanout", &options);
        assert_eq!(report["expected"], json!((64 + 120) * audience), "{publish}");
        assert_eq!(report["received"], report["expected"], "{publish}");
        assert_eq!((&report["ends"], &report["errors"]), (&json!({}), &json!({})), "{publish}");
    }
}

#[test]
fn fanout_counts_every_delivery_of_a_stream() {
    let server = Server::start(open_channels);
    let channels = ["--protocol", "sse", "--channels", "20", "--publish", "http"];
    let spread = ["--connections", "10", "--subscriptions-per-connection", "6", "--rate", "200"];
    let report = server.report("fanout", &[&channels[..], &spread].concat());
    assert_eq!(report["expected"], json!((64 + 120) * 3));
    assert_eq!(report["received"], report["expected"]);
    let event = "event: load00000\ndata: {\"body\":\"\"}\n\n".len() + 128;
    assert_eq!(report["payload_bytes"], json!(event));
    assert_eq!(report["ends"], json!({}));
}

#[test]
fn channels_are_compared_with_a_floor_that_sends_each_frame_to_one() {
    let server = Server::start(open_channels);
    let load = ["--connections", "20", "--channels", "20", "--rate", "200", "--publish", "http"];
    let compare = ["--protocol", "centrifuge", "--compare", "unicast", "--rounds", "1"];
    let report = server.report("fanout", &[&load[..], &compare].concat());
    let Round { fanfare, yardstick } = Round::only(&report);
    assert_eq!(fanfare["payload_bytes"], yardstick["payload_bytes"]);
    for side in [fanfare, yardstick] {
        assert_eq!((&side["received"], &side["lost"]), (&json!(64 + 120), &json!(0)));
    }
}

#[test]
fn a_channel_and_the_chat_are_compared_by_frames_of_one_length() {
    let server = Server::start(open_channels);
    let load = ["--connections", "20", "--rate", "200", "--publish", "http"];
    let compare = ["--protocol", "centrifuge", "--compare", "chat", "--rounds", "1"];
    let report = server.report("fanout", &[&load[..], &compare].concat());
    let Round { fanfare, yardstick } = Round::only(&report);
    let payload = r#"{"push":{"channel":"load00000","pub":{"data":{"body":""}}}}"#.len() + 128;
    for side in [fanfare, yardstick] {
        assert_eq!(side["payload_bytes"], json!(payload));
        assert_eq!(side["received"], json!((64 + 120) * 20));
    }
}

#[test]
fn subscribe_counts_what_each_subscription_costs() {
    let server = Server::start(open_channels);
    let channels = ["--channels", "30", "--subscriptions-per-connection", "20"];
    let options = ["--connections", "40", "--settle", "0s"];
    let report = server.report("subscribe", &[channels, options].concat());
    assert_eq!(report["subscriptions"], json!(40 * 20));
    assert!(report["us_per_subscribe"].is_f64());
    assert!(report["bytes_per_subscription"].is_f64());
}

#[test]
fn recover_finds_that_all_is_recovered() {
    let server = Server::start(channels_with_history);
    let report = server.report("recover", &RECOVER);
    assert_eq!(report["recovered"], json!(40 * 5));
    assert_eq!((&report["unrecovered"], &report["partial"]), (&json!(0), &json!(0)));
    assert_eq!((&report["publications"], &report["missed"]), (&json!(4000), &json!(4000)));
}

#[test]
fn recover_fails_if_the_window_is_too_small() {
    let server = Server::start(|config| {
        channels_with_history(config);
        config.channel.history_size = 19;
    });
    let output = loadtest(&[&["recover", "--url", &server.url()], &RECOVER[..]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("200 subscriptions are not recovered, 0 only partly"), "{said}");
}

#[test]
fn audit_finds_no_fault() {
    let server = Server::start(|_| ());
    let options = ["--connections", "20", "--publishers", "4", "--rate", "200", "--duration", "1s"];
    let report = server.report("audit", &options);
    assert_eq!(report["faults"], json!([]));
    assert_eq!(report["connections"], json!(22));
    assert_eq!((&report["published"], &report["admitted"]), (&json!(800), &json!(800)));
    assert_eq!(report["received"], json!(800 * 22));
}

#[test]
fn audit_allows_for_publishes_that_were_refused() {
    let server = Server::start(|config| {
        config.limits.ring_messages = 8;
        config.limits.outbox_bytes = 64 << 20;
    });
    let options = ["--connections", "5", "--publishers", "4", "--rate", "max", "--duration", "1s"];
    let report = server.report("audit", &options);
    assert_eq!(report["faults"], json!([]));
    assert!(report["admitted"].as_u64().unwrap() < report["published"].as_u64().unwrap());
}

#[test]
fn audit_finds_that_those_who_are_cut_recover_everything() {
    let server = Server::start(channels_with_history);
    let report = server.report("audit", &RESTLESS);
    assert_eq!(report["faults"], json!([]));
    assert_eq!(report["connections"], json!(22));
    // Of 20 channels 20 connections subscribe to 5 each, and 2 that publish to all.
    assert_eq!(report["expected"], json!(800 * (20 * 5 / 20 + 2)));
    assert_eq!(report["received"], report["expected"]);
    for what in ["cuts", "stalls", "recovered", "publications"] {
        assert!(report[what].as_u64().unwrap() > 0, "{what}: {report}");
    }
    assert_eq!(report["unrecovered"], json!(0));
}

#[test]
fn audit_forgives_what_left_the_window_and_nothing_else() {
    let server = Server::start(|config| {
        channels_with_history(config);
        config.channel.history_size = 2;
    });
    let report = server.report("audit", &[&RESTLESS[..], &["--window", "2"]].concat());
    assert_eq!(report["faults"], json!([]));
    assert!(report["unrecovered"].as_u64().unwrap() > 0, "{report}");
    let [received, forgiven, expected] =
        ["received", "forgiven", "expected"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(received + forgiven, expected);

    let output = loadtest(&[&["audit", "--url", &server.url()], &RESTLESS[..]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("recoveries are refused inside the window"), "{said}");
}

#[test]
fn storm_connects_all_twice_and_disturbs_no_feed() {
    let server = Server::start(|_| ());
    let options = ["--connections", "200", "--feed-connections", "20", "--quiet", "500ms"];
    let report = server.report("storm", &options);
    for wave in report["waves"].as_array().unwrap() {
        assert_eq!((&wave["connected"], &wave["refused"]), (&json!(200), &json!(0)));
        assert_eq!(wave["ended"], json!({}));
    }
    assert_eq!(report["feed_lost"], json!(0));
    assert_eq!(report["quiet_ms"]["samples"], json!(10 * 20));
}

#[test]
fn storm_counts_who_is_refused() {
    let server = Server::start(|config| config.limits.connections = Some(50));
    let options = ["--connections", "60", "--feed-connections", "20", "--quiet", "100ms"];
    let report = server.report("storm", &options);
    let wave = &report["waves"][0];
    let [connected, refused] = ["connected", "refused"].map(|key| wave[key].as_u64().unwrap());
    assert_eq!(connected + refused, 60);
    assert!(refused >= 30, "{wave}");
    assert!(wave["refusal"].as_str().unwrap().contains("503"), "{wave}");
}

#[test]
fn stalled_peers_find_their_close() {
    let server = Server::start(|config| config.limits.outbox_bytes = 256 << 10);
    let options = ["--connections", "10", "--stalled", "3", "--rate", "200", "--duration", "2s"];
    let report = server.report("stalled", &options);
    assert_eq!(report["found"], json!({"close 3008": 3}));
    assert_eq!((&report["lost"], &report["ended"]), (&json!(0), &json!({})));
    assert_eq!(report["with_ms"]["samples"], json!(400 * 11));
    assert!(report["memory_with"]["sockets"].as_u64().unwrap() > 0);
}

#[test]
fn flood_leaves_no_ping_unanswered() {
    let server = Server::start(|_| ());
    let report = server.report("flood", &["--duration", "1s"]);
    assert_eq!(report["unanswered"], json!(0));
    assert_eq!(report["pong_ms"]["samples"], json!(100));
    assert!(report["frames_per_second"].as_f64().unwrap() > 10_000.0);
}

#[test]
fn what_cannot_be_used_is_said_in_one_line() {
    let server = Server::start(|_| ());
    let url = server.url();
    let without_history = Server::start(open_channels);
    let open = without_history.url();
    let nowhere = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (arguments, expected) in [
        (&["fanout", "--url", "ftp://x"][..], "is no URL to use"),
        (&["fanout", "--url", &nowhere], "Connection refused"),
        (&["fanout", "--url", &url, "--secret", "another secret"], "refuses the tokens"),
        (
            &["fanout", "--url", &url, "--publish", "http", "--api-key", "another"],
            "refuses the key",
        ),
        (&["fanout", "--url", &url, "--pid", "999999999"], "cannot measure process 999999999"),
        (&["audit", "--url", &url, "--api-key", "another"], "refuses the key"),
        (&["storm", "--url", &nowhere], "Connection refused"),
        (&["subscribe", "--url", &url], "channel.subscribe = anyone"),
        (&["subscribe", "--url", &url, "--secret", "another secret"], "refuses the tokens"),
        (&["audit", "--url", &url, "--channels", "10"], "channel.subscribe = anyone"),
        (&["audit", "--url", &open, "--channels", "10"], "channel.recovery = stream"),
        (&["recover", "--url", &open, "--channels", "10"], "channel.recovery = stream"),
        (&["fanout", "--url", &url, "--channels", "2"], "chat has no channels"),
        (&["fanout", "--url", &url, "--protocol", "sse"], "use --publish http"),
        (
            &["fanout", "--url", &url, "--protocol", "sse", "--publish", "http"],
            "channel.subscribe = anyone",
        ),
        (&["fanout", "--url", &url, "--protocol", "centrifuge", "--channels", "2"], "evenly"),
        (&["stalled", "--url", &nowhere], "Connection refused"),
        (&["flood", "--url", &url, "--secret", "another secret"], "close 1008"),
    ] {
        let few = if arguments[0] == "flood" { &[][..] } else { &["--connections", "5"] };
        let output = loadtest(&[arguments, few].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
}

/// Lets everyone subscribe, and subscribers publish.
fn open_channels(config: &mut Config) {
    config.channel.subscribe = Subscribe::Anyone;
    config.channel.publish = Publish::Subscribers;
}

fn channels_with_history(config: &mut Config) {
    open_channels(config);
    config.channel.history_size = 1000;
    config.channel.recovery = Recovery::Stream;
}

/// 200 subscriptions, each of which misses 20 publications.
const RECOVER: [&str; 8] = [
    "--connections",
    "40",
    "--channels",
    "10",
    "--subscriptions-per-connection",
    "5",
    "--missed",
    "20",
];

/// 20 channels, and 20 subscribers that are cut over and over.
const RESTLESS: [&str; 14] = [
    "--channels",
    "20",
    "--connections",
    "20",
    "--publishers",
    "4",
    "--rate",
    "100",
    "--duration",
    "2s",
    "--life",
    "200ms",
    "--stall",
    "100ms",
];

/// Both sides of a comparison.
struct Round<'a> {
    fanfare: &'a Value,
    yardstick: &'a Value,
}

impl<'a> Round<'a> {
    fn only(report: &'a Value) -> Self {
        let round = &report["rounds"][0];
        Self { fanfare: &round["fanfare"], yardstick: &round["yardstick"] }
    }
}
