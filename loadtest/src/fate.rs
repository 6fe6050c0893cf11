//! What becomes of a subscriber's connections.

use std::time::Duration;

use crate::dice::Dice;

/// How long each lives, and how it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// How long one lives, on average.
    life: Duration,
    /// How long it does not read, one time of four; else it is cut.
    pub(crate) stall: Duration,
    pub(crate) dice: Dice,
}

impl Fate {
    pub(crate) fn new(life: Duration, stall: Duration) -> Self {
        Self { life, stall, dice: Dice::new(0) }
    }

    /// The same for one user, whose chances are its own.
    pub(crate) fn of(self, user: u32) -> Self {
        Self { dice: Dice::new(user.into()), ..self }
    }

    /// Anything up to twice the average.
    pub(crate) fn life(&mut self) -> Duration {
        self.dice.up_to(self.life * 2)
    }

    pub(crate) fn is_stall(&mut self) -> bool {
        self.dice.below(4) == 0
    }

    /// How long it takes until the next connection: often next to nothing, as then others know less than
    /// who comes.
    pub(crate) fn away(&mut self) -> Duration {
        let most = self.dice.up_to(AWAY);
        self.dice.up_to(most)
    }
}

/// How long somebody who was cut stays away at most.
const AWAY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_as_long_as_it_should_be_on_average_and_one_of_four_ends_in_a_stall() {
        let life = Duration::from_secs(2);
        let mut fate = Fate::new(life, life).of(7);
        let lives: Vec<_> = (0..10_000).map(|_| fate.life()).collect();
        assert!(lives.iter().all(|one| *one < 2 * life));
        let average = lives.iter().sum::<Duration>().as_secs_f64() / 10_000.0;
        assert!((1.9..2.1).contains(&average), "{average}");
        let stalls = (0..10_000).filter(|_| fate.is_stall()).count();
        assert!((2_300..2_700).contains(&stalls), "{stalls}");
    }
}
