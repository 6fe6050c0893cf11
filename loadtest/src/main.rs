//! Load tester for fanfare. README.md says what is measured, and how.

mod audit;
mod audit_channels;
mod author;
mod backend;
mod centrifuge;
mod channels;
mod cli;
mod client;
mod clock;
mod cluster;
mod compare;
mod counts;
mod crowd;
mod dice;
mod events;
mod failure;
mod fanout;
mod fate;
mod feed;
mod flood;
mod floor;
mod frames;
mod insistent;
mod ledger;
mod mark;
mod meter;
mod nodes;
mod opening;
mod outcome;
mod process;
mod progress;
mod publisher;
mod reader;
mod recover;
mod report;
mod responses;
mod restless;
mod scanner;
mod schedule;
mod sse;
mod stalled;
mod storm;
mod stream;
mod subscribe;
mod subscribers;
mod tally;
mod target;
mod trail;
mod writer;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, LocalOptions};

use crate::cli::{Arguments, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fanfare-loadtest: {failure}");
            ExitCode::from(match failure {
                Failure::Setup(_) => 2,
                Failure::Run(_) => 1,
            })
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    // One thread generates all the load, so that it is seen when that thread is the limit.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    match command {
        Command::Floor { bind, unicast } => Ok(floor::serve(bind, unicast)?),
        Command::Fanout(fanout) => match fanout.compare {
            Some(yardstick) => runtime.block_on(compare::run(&fanout, yardstick)),
            None => runtime.block_on(fanout::run(&fanout)),
        },
        Command::Storm(storm) => runtime.block_on(storm::run(&storm)),
        Command::Stalled(stalled) => runtime.block_on(stalled::run(&stalled)),
        Command::Subscribe(subscribe) => runtime.block_on(subscribe::run(&subscribe)),
        Command::Recover(recover) => runtime.block_on(recover::run(&recover)),
        Command::Audit(audit) => match audit.channels {
            Some(channels) => runtime.block_on(audit_channels::run(&audit, channels)),
            None => runtime.block_on(audit::run(&audit)),
        },
        Command::Cluster(cluster) => runtime.block_on(cluster::run(&cluster)),
        Command::Flood(flood) => runtime.block_on(flood::run(&flood)),
    }
}

/// Takes as many descriptors as may be had, since each connection needs one.
fn raise_descriptor_limit() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    Ok(setrlimit(Resource::Nofile, raised).map_err(std::io::Error::from)?)
}
