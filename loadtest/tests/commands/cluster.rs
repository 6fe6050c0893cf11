//! `cluster`, with nodes of the same build.

use std::path::Path;

use serde_json::{Value, json};

use crate::server::loadtest;

#[test]
fn cluster_loses_nothing_though_nodes_and_redis_are_killed() {
    audit("redis");
}

#[test]
fn cluster_loses_nothing_though_nodes_and_nats_are_killed() {
    audit("nats");
}

#[test]
fn cluster_says_what_it_cannot_start() {
    let output = loadtest(&["cluster", "--fanfare", "/nowhere/fanfare"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot start /nowhere/fanfare"), "{said}");
}

/// Runs until the broker has had its turn.
fn audit(broker: &str) {
    let fanfare = Path::new(env!("CARGO_BIN_EXE_fanfare-loadtest")).with_file_name("fanfare");
    assert!(fanfare.exists(), "build it first: cargo build");
    let (started, load) = (
        ["cluster", "--json", "--fanfare", fanfare.to_str().unwrap(), "--broker", broker],
        [
            ["--subscribers", "10"],
            ["--duration", "8s"],
            ["--kills", "2s"],
            ["--life", "300ms"],
            ["--stall", "100ms"],
        ],
    );
    let output = loadtest(&[&started[..], &load.concat()].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["faults"], json!([]));
    let killed: Vec<_> = report["kills"].as_array().unwrap().iter().map(|it| &it["node"]).collect();
    assert_eq!(killed, [&json!(1), &json!(0), &Value::Null]);
    // 30 subscribers of 5 of 20 channels each, and what was not accepted was tried again.
    assert_eq!((&report["published"], &report["admitted"]), (&json!(3200), &json!(3200)));
    assert_eq!(report["expected"], json!(3200 * 30 * 5 / 20));
    assert_eq!(report["received"], report["expected"]);
    for what in ["cuts", "stalls", "recovered", "publications"] {
        assert!(report[what].as_u64().unwrap() > 0, "{what}: {report}");
    }
}
