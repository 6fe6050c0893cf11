//! k6 cannot be had everywhere, so its scripts are checked against its types, and run on Node.js
//! with the few of its modules that they use.

use crate::support::{Service, node, path, program, run};

#[test]
fn the_scripts_agree_with_the_types_of_k6() {
    let project = path("loadtest/k6");
    let tsc = project.join("node_modules/.bin/tsc");
    run(&program(tsc, &["--project", project.to_str().unwrap()]));
}

#[test]
fn every_subscriber_gets_every_publish() {
    passes_its_thresholds("fanout.js");
}

#[test]
fn chatting_users_hear_each_other() {
    passes_its_thresholds("chat.js");
}

#[test]
fn connections_come_and_go() {
    passes_its_thresholds("ramp.js");
}

fn passes_its_thresholds(script: &str) {
    let script = path("loadtest/k6").join(script);
    // Short, and with bars that a busy machine holds: what is tested is the script.
    let short = ["USERS=5", "SECONDS=2", "MARGIN=2", "PAUSE=1", "STAY=2", "P95=5000", "P99=5000"];
    let arguments = [&[script.to_str().unwrap()], &short[..]].concat();
    Service::fanfare().run(node("k6.mjs", &arguments));
}
