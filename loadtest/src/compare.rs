//! `fanout --compare-floor`: the server and the floor in turn, and the ratios.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde::Serialize;

use crate::cli::Fanout;
use crate::failure::Failure;
use crate::fanout::{Load, measure};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::process::Process;
use crate::report;
use crate::target::Target;

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Fanout) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret)?;
    let meter = Meter::new(options.server.pid)?;
    let load = Load::new(options)?;
    let floor = Floor::start(options.server.pid)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let title = |name| format!("{name} {round}/{}", options.rounds);
        let fanfare = measure(&target, &load, meter, &title("fanfare")).await?;
        // The floor adds nothing to a payload, so it is sent what fanfare delivers.
        let load = load.for_floor(fanfare.payload_bytes);
        let floor = measure(&floor.target, &load, floor.meter, &title("floor")).await?;
        rounds.push(Round { fanfare, floor });
    }
    let comparison = Comparison::new(rounds);
    report::print(options.server.json, &comparison, || comparison.rows())
}

/// A floor server of our own; ends when dropped.
struct Floor {
    child: Child,
    meter: Meter,
    target: Target,
}

impl Floor {
    /// Starts one on the CPUs that the server may run on.
    fn start(server: Option<u32>) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["floor", "--bind", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(server) = server {
            Process::new(child.id())?.share_cpus_of(Process::new(server)?)?;
        }
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address: Option<SocketAddr> = line.trim().parse().ok();
        let address =
            address.ok_or_else(|| Failure::Run("the floor server did not start".to_owned()))?;
        let meter = Meter::new(Some(child.id()))?;
        Ok(Self { child, meter, target: Target::floor(address) })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[derive(Debug, Serialize)]
struct Round {
    fanfare: Outcome,
    floor: Outcome,
}

/// Every round, and the medians.
#[derive(Debug, Serialize)]
struct Comparison {
    medians: Vec<Median>,
    rounds: Vec<Round>,
}

/// One figure over all rounds.
#[derive(Debug, Serialize)]
struct Median {
    name: &'static str,
    fanfare: f64,
    floor: f64,
    /// The median of the rounds' ratios, not the ratio of the medians.
    ratio: f64,
    ratios: Vec<f64>,
}

impl Comparison {
    fn new(rounds: Vec<Round>) -> Self {
        let medians = FIGURES.iter().filter_map(|(name, figure)| {
            let figures = rounds
                .iter()
                .map(|round| Some([figure(&round.fanfare)?, figure(&round.floor)?]))
                .collect::<Option<Vec<_>>>()?;
            Some(Median::new(name, &figures))
        });
        Self { medians: medians.collect(), rounds }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let head = format!("{:>12} {:>12} {:>8}  of each round", "fanfare", "floor", "ratio");
        let mut rows = vec![("median", head)];
        rows.extend(self.medians.iter().map(|median| (median.name, median.to_string())));
        // What a process once needed it may keep, so only the first connects tell.
        if let Some(Round { fanfare, floor }) = self.rounds.first() {
            rows.push(("memory, fanfare", fanfare.memory_text()));
            rows.push(("memory, floor", floor.memory_text()));
        }
        for (round, Round { fanfare, floor }) in (1..).zip(&self.rounds) {
            for (name, outcome) in [("fanfare", fanfare), ("floor", floor)] {
                if outcome.lost != 0 || !outcome.ends.is_empty() {
                    let text = format!("{} lost, ended: {:?}", outcome.lost, outcome.ends);
                    rows.push(("FAULT", format!("{name} {round}: {text}")));
                }
                let limit = outcome.usage.limit.iter();
                rows.extend(limit.map(|limit| ("LIMIT", format!("{name} {round}: {limit}"))));
            }
        }
        rows
    }
}

impl Median {
    fn new(name: &'static str, rounds: &[[f64; 2]]) -> Self {
        let ratios: Vec<f64> = rounds.iter().map(|[fanfare, floor]| fanfare / floor).collect();
        let side = |side: usize| median(rounds.iter().map(|round| round[side]).collect());
        Self { name, fanfare: side(0), floor: side(1), ratio: median(ratios.clone()), ratios }
    }
}

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fanfare, floor, ratio, ratios, .. } = self;
        write!(f, "{fanfare:12.3} {floor:12.3} {ratio:8.3} ")?;
        ratios.iter().try_for_each(|ratio| write!(f, " {ratio:.3}"))
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

type Figure = fn(&Outcome) -> Option<f64>;

/// What is compared.
const FIGURES: [(&str, Figure); 8] = [
    ("CPU a delivery, µs", |outcome| outcome.us_per_delivery),
    ("CPU a connect, µs", |outcome| outcome.us_per_connect),
    ("latency p50, ms", |outcome| Some(outcome.latency_ms.p50)),
    ("latency p99, ms", |outcome| Some(outcome.latency_ms.p99)),
    ("latency max, ms", |outcome| Some(outcome.latency_ms.max)),
    ("deliveries/s", |outcome| Some(outcome.deliveries_per_second)),
    ("server CPU, cores", |outcome| outcome.usage.server_cpu),
    ("load tester CPU, cores", |outcome| Some(outcome.usage.generator_cpu)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn ratios_are_made_within_rounds() {
        let median = Median::new("", &[[1.0, 2.0], [6.0, 2.0], [8.0, 4.0]]);
        assert_eq!(median.ratios, [0.5, 3.0, 2.0]);
        assert_eq!((median.fanfare, median.floor, median.ratio), (6.0, 2.0, 2.0));
    }
}
