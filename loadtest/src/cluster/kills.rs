//! Kills, one after the other.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, Member};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::failure::Failure;

/// A kill, and the start after it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Kill {
    /// Which node; none is the broker.
    pub(super) node: Option<usize>,
    /// When, in the run's seconds.
    at: f64,
    /// Until when it did not serve.
    back: f64,
}

/// Kills a member every `interval` for so long, and starts it again each time; without an interval it
/// watches that all live.
pub(super) async fn run(
    fleet: &mut Fleet,
    interval: Duration,
    length: Duration,
    clock: Clock,
) -> Result<Vec<Kill>, Failure> {
    let (mut kills, mut dice) = (Vec::new(), Dice::new(SEED));
    let mut turns = Turns { members: fleet.members(), left: Vec::new() };
    let end = Instant::now() + length;
    let mut next = Instant::now();
    loop {
        next = if interval.is_zero() { end } else { Instant::now().max(next + interval) };
        fleet.watch_until(next.min(end)).await?;
        if next >= end {
            return Ok(kills);
        }
        let member = turns.next(&mut dice);
        let at = seconds(clock);
        fleet.kill(member)?;
        sleep(AWAY_MIN + dice.up_to(AWAY_MORE)).await;
        fleet.restart(member).await?;
        let node = match member {
            Member::Node(number) => Some(number),
            Member::Broker => None,
        };
        kills.push(Kill { node, at, back: seconds(clock) });
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(number) => write!(f, "node {number}")?,
            None => f.write_str("the broker")?,
        }
        write!(f, " at {:.3} s, back at {:.3} s", self.at, self.back)
    }
}

/// By chance, but each once before any comes again, so that no run passes one over.
#[derive(Debug)]
struct Turns {
    members: Vec<Member>,
    left: Vec<Member>,
}

impl Turns {
    fn next(&mut self, dice: &mut Dice) -> Member {
        if self.left.is_empty() {
            self.left.clone_from(&self.members);
        }
        self.left.swap_remove(dice.below(self.left.len()))
    }
}

fn seconds(clock: Clock) -> f64 {
    Duration::from_nanos(clock.now()).as_secs_f64()
}

/// How long what was killed stays away.
const AWAY_MIN: Duration = Duration::from_millis(200);
const AWAY_MORE: Duration = Duration::from_millis(600);

/// Anything.
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_before_any_comes_again() {
        let members = vec![Member::Node(0), Member::Node(1), Member::Broker];
        let (mut turns, mut dice) =
            (Turns { members: members.clone(), left: Vec::new() }, Dice::new(5));
        for _ in 0..20 {
            let mut round: Vec<_> = members.iter().map(|_| turns.next(&mut dice)).collect();
            round.sort_by_key(|member| members.iter().position(|other| other == member));
            assert_eq!(round, members);
        }
    }
}
