//! `cluster`: nodes and a broker of its own, killed again and again, while subscribers that go from node
//! to node must get every accepted publish, once and in order.

mod daemon;
mod directory;
mod fleet;
mod kills;
mod nats;
mod ports;
mod redis;
mod stop;

use std::collections::BTreeMap;
use std::rc::Rc;

use fleet::{API_KEY, Fleet};
use kills::Kill;
use serde::Serialize;

use crate::audit;
use crate::author::{Author, Over};
use crate::channels::Channels;
use crate::cli::Cluster;
use crate::clock::Clock;
use crate::crowd::{self, Crowd, Everybody};
use crate::failure::Failure;
use crate::fate::Fate;
use crate::insistent::{Insistence, Insistent};
use crate::ledger;
use crate::report;
use crate::schedule::Schedule;
use crate::target::Wire;

/// Runs the command and prints its report; fails if anything is wrong.
pub(crate) async fn run(options: &Cluster) -> Result<(), Failure> {
    tokio::select! {
        done = start_and_audit(options) => done,
        wanted = stop::wanted() => {
            wanted?;
            Err(Failure::Run("stopped by a signal".to_owned()))
        }
    }
}

async fn start_and_audit(options: &Cluster) -> Result<(), Failure> {
    let channels = Channels::new(options.channels, options.subscriptions_per_connection)?;
    let mut fleet = Fleet::start(options, Wire::Centrifuge(channels)).await?;
    audit(options, channels, &mut fleet).await.map_err(|failure| {
        let files = fleet.keep_files().display();
        Failure::Run(format!("{failure}; the logs are in {files}"))
    })
}

async fn audit(options: &Cluster, channels: Channels, fleet: &mut Fleet) -> Result<(), Failure> {
    let clock = Clock::start();
    let crowd = Crowd {
        nodes: fleet.known.clone(),
        channels,
        counts: Rc::default(),
        publishers: options.publishers,
        window: crowd::WINDOW,
        fate: Fate::new(options.life, options.stall),
    };
    let everybody = Everybody::subscribe(&crowd, options.nodes * options.subscribers).await?;
    let terms = Insistence {
        nodes: fleet.known.clone(),
        channels,
        key: API_KEY.to_owned(),
        size: options.size,
        retries: Rc::default(),
    };
    let (publishers, authors): (Vec<_>, Vec<_>) =
        (0..options.publishers).map(|number| open(&terms, number)).unzip();
    let schedule = Schedule::new(options.rate, clock.now(), options.duration);
    let publishers = publishers.into_iter().map(|publisher| publisher.run(schedule.clone(), clock));
    let mut killed = Vec::new();
    let publishing = async {
        let publishing = audit::all_at_once(publishers);
        let killing = kills::run(fleet, options.kills, options.duration, clock);
        ((), killed) = tokio::try_join!(publishing, killing)?;
        Ok(())
    };
    let audit = ledger::run(&crowd, everybody, authors, publishing).await?;
    let retried = terms.retries.borrow().clone();
    let outcome = Outcome { nodes: options.nodes, kills: killed, retried, audit };
    report::print(options.json, &outcome, || outcome.rows())?;
    audit::check(&outcome.audit.faults)
}

fn open(terms: &Insistence, number: u16) -> (Insistent, Author) {
    let publisher = Insistent::new(terms.clone(), number);
    let (name, sent) = (format!("publisher {number}"), publisher.sent());
    (publisher, Author { name, sent, over: Over::Insistent })
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    nodes: u32,
    kills: Vec<Kill>,
    /// Publishes that were tried again, by why.
    retried: BTreeMap<String, u64>,
    #[serde(flatten)]
    audit: ledger::Outcome,
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { nodes, kills, retried, audit } = self;
        let of_nodes = kills.iter().filter(|kill| kill.node.is_some()).count();
        let of_broker = kills.len() - of_nodes;
        let mut rows = vec![
            ("nodes", nodes.to_string()),
            ("kills", format!("{of_nodes} of nodes, {of_broker} of the broker")),
        ];
        rows.extend(retried.iter().map(|(why, count)| ("tried again", format!("{why}: {count}"))));
        rows.extend(audit.rows());
        if !audit.faults.is_empty() {
            rows.extend(kills.iter().map(|kill| ("killed", kill.to_string())));
        }
        rows
    }
}
