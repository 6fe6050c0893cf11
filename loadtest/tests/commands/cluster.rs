//! `cluster`, with nodes of the same build.

use std::path::Path;

use serde_json::{Value, json};

use crate::server::loadtest;

#[test]
fn cluster_loses_nothing_though_a_node_or_the_broker_is_killed() {
    let fanfare = Path::new(env!("CARGO_BIN_EXE_fanfare-loadtest")).with_file_name("fanfare");
    assert!(fanfare.exists(), "build it first: cargo build");
    let (started, load) = (
        ["cluster", "--json", "--fanfare", fanfare.to_str().unwrap()],
        [
            ["--subscribers", "10"],
            ["--duration", "4s"],
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
    assert_eq!(report["kills"].as_array().unwrap().len(), 1);
    // 30 subscribers of 5 of 20 channels each, and what was not accepted was tried again.
    assert_eq!((&report["published"], &report["admitted"]), (&json!(1600), &json!(1600)));
    assert_eq!(report["expected"], json!(1600 * 30 * 5 / 20));
    assert_eq!(report["received"], report["expected"]);
    for what in ["cuts", "stalls", "recovered", "publications"] {
        assert!(report[what].as_u64().unwrap() > 0, "{what}: {report}");
    }
}

#[test]
fn cluster_says_what_it_cannot_start() {
    let output = loadtest(&["cluster", "--fanfare", "/nowhere/fanfare"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot start /nowhere/fanfare"), "{said}");
}
