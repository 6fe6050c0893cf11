//! `fanout --compare`: what is measured and a yardstick in turn, and the ratios.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde::Serialize;

use crate::cli::{Fanout, Yardstick};
use crate::failure::Failure;
use crate::fanout::{Load, measure, wire};
use crate::feed::Reach;
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::process::Process;
use crate::report;
use crate::target::{Target, Wire};

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Fanout, yardstick: Yardstick) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret, wire(options)?)?;
    let meter = Meter::new(options.server.pid)?;
    let load = Load::new(options)?;
    let other = Other::new(yardstick, &target, meter, options.server.pid)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let title = |name| format!("{name} {round}/{}", options.rounds);
        let fanfare = measure(&target, &load, meter, &title("fanfare")).await?;
        // The floor adds nothing to a payload, and the chat little; either gets frames as long.
        let load = match yardstick {
            Yardstick::Floor => load.for_floor(fanfare.payload_bytes, Reach::All),
            Yardstick::Unicast => load.for_floor(fanfare.payload_bytes, Reach::One),
            Yardstick::Chat => load.for_chat(fanfare.payload_bytes)?,
        };
        let other = measure(&other.target, &load, other.meter, &title(yardstick.name())).await?;
        rounds.push(Round { fanfare, yardstick: other });
    }
    let comparison = Comparison::new(yardstick, rounds);
    report::print(options.server.json, &comparison, || comparison.rows())
}

/// What is measured in turn with what was asked for.
struct Other {
    target: Target,
    meter: Meter,
    /// Ends when dropped.
    _floor: Option<Floor>,
}

impl Other {
    fn new(
        yardstick: Yardstick,
        target: &Target,
        meter: Meter,
        pid: Option<u32>,
    ) -> Result<Self, Failure> {
        if yardstick == Yardstick::Chat {
            return Ok(Self { target: target.over(Wire::Chat), meter, _floor: None });
        }
        let (floor, address) = Floor::start(pid, yardstick == Yardstick::Unicast)?;
        let meter = Meter::new(Some(floor.0.id()))?;
        Ok(Self { target: Target::floor(address), meter, _floor: Some(floor) })
    }
}

/// A floor server of our own; ends when dropped.
struct Floor(Child);

impl Floor {
    /// Starts one on the CPUs that the server may run on.
    fn start(server: Option<u32>, is_unicast: bool) -> Result<(Self, SocketAddr), Failure> {
        let child = Command::new(std::env::current_exe()?)
            .args(["floor", "--bind", "127.0.0.1:0"])
            .args(is_unicast.then_some("--unicast"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut floor = Self(child);
        if let Some(server) = server {
            Process::new(floor.0.id())?.share_cpus_of(Process::new(server)?)?;
        }
        let mut line = String::new();
        if let Some(output) = floor.0.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse();
        let address =
            address.map_err(|_| Failure::Run("the floor server did not start".to_owned()))?;
        Ok((floor, address))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[derive(Debug, Serialize)]
struct Round {
    fanfare: Outcome,
    yardstick: Outcome,
}

/// Every round, and the medians.
#[derive(Debug, Serialize)]
struct Comparison {
    /// What the yardstick is.
    beside: &'static str,
    medians: Vec<Median>,
    rounds: Vec<Round>,
}

/// One figure over all rounds.
#[derive(Debug, Serialize)]
struct Median {
    name: &'static str,
    fanfare: f64,
    yardstick: f64,
    /// The median of the rounds' ratios, not the ratio of the medians.
    ratio: f64,
    ratios: Vec<f64>,
}

impl Comparison {
    fn new(yardstick: Yardstick, rounds: Vec<Round>) -> Self {
        let medians = FIGURES.iter().filter_map(|(name, figure)| {
            let figures = rounds
                .iter()
                .map(|round| Some([figure(&round.fanfare)?, figure(&round.yardstick)?]))
                .collect::<Option<Vec<_>>>()?;
            Some(Median::new(name, &figures))
        });
        Self { beside: yardstick.name(), medians: medians.collect(), rounds }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let head = format!("{:>12} {:>12} {:>8}  of each round", "fanfare", self.beside, "ratio");
        let mut rows = vec![("median", head)];
        rows.extend(self.medians.iter().map(|median| (median.name, median.to_string())));
        // What a process once needed it may keep, so only the first connects tell.
        if let Some(Round { fanfare, yardstick }) = self.rounds.first() {
            rows.push(("memory, fanfare", fanfare.memory_text()));
            rows.push(("memory, yardstick", yardstick.memory_text()));
        }
        for (round, Round { fanfare, yardstick }) in (1..).zip(&self.rounds) {
            for (name, outcome) in [("fanfare", fanfare), (self.beside, yardstick)] {
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
        let ratios: Vec<f64> = rounds.iter().map(|[fanfare, other]| fanfare / other).collect();
        let side = |side: usize| median(rounds.iter().map(|round| round[side]).collect());
        Self { name, fanfare: side(0), yardstick: side(1), ratio: median(ratios.clone()), ratios }
    }
}

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fanfare, yardstick, ratio, ratios, .. } = self;
        write!(f, "{fanfare:12.3} {yardstick:12.3} {ratio:8.3} ")?;
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
        assert_eq!((median.fanfare, median.yardstick, median.ratio), (6.0, 2.0, 2.0));
    }
}
