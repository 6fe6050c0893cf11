//! What was answered to publishes with an idempotency key, so that one that is sent again is
//! answered again, but not published.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::hub::publish::Published;
use crate::lock::lock;

/// The answers to publishes with a key, by channel and key.
#[derive(Debug)]
pub(crate) struct Answered {
    answers: Mutex<Answers>,
    max: usize,
}

#[derive(Debug, Default)]
struct Answers {
    by_name: HashMap<Arc<str>, Published>,
    oldest_first: VecDeque<(Instant, Arc<str>)>,
}

impl Answered {
    /// Remembers at most so many; over it the oldest is forgotten.
    pub(crate) fn new(max: usize) -> Self {
        Self { answers: Mutex::default(), max }
    }

    /// Publishes, unless that was done under the same key within [`MEMORY`]; a refusal does not
    /// count. Publishes with a key take turns, whatever their key: `publish` does no more than what
    /// is done under a channel's lock.
    pub(crate) fn once<E>(
        &self,
        channel: &str,
        key: &str,
        now: Instant,
        publish: impl FnOnce() -> Result<Published, E>,
    ) -> Result<Published, E> {
        let name: Arc<str> = format!("{}:{channel}{key}", channel.len()).into();
        // An answer is whole whatever panicked beside it.
        let mut answers = lock(&self.answers);
        answers.forget(|age, _| age >= MEMORY, now);
        if let Some(published) = answers.by_name.get(&name) {
            return Ok(published.clone());
        }
        let published = publish()?;
        answers.by_name.insert(name.clone(), published.clone());
        answers.oldest_first.push_back((now, name));
        answers.forget(|_, count| count > self.max, now);
        Ok(published)
    }
}

impl Answers {
    /// Forgets the oldest for as long as its age, or how many there are, says so.
    fn forget(&mut self, must_go: impl Fn(Duration, usize) -> bool, now: Instant) {
        while let Some((since, name)) = self.oldest_first.front() {
            if !must_go(now.saturating_duration_since(*since), self.oldest_first.len()) {
                break;
            }
            self.by_name.remove(name);
            self.oldest_first.pop_front();
        }
    }
}

/// How long an answer is remembered: as long as Centrifugo does.
const MEMORY: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Publishes with a key; returns the offset that is answered.
    fn publish(answered: &Answered, name: (&str, &str), now: Instant, offset: u64) -> u64 {
        let published = || Ok::<_, Infallible>(Published { offset, ..Published::default() });
        let Ok(published) = answered.once(name.0, name.1, now, published);
        published.offset
    }

    #[test]
    fn a_key_is_of_one_channel_and_for_five_minutes() {
        let (answered, now) = (Answered::new(10), Instant::now());
        assert_eq!(publish(&answered, ("a", "k"), now, 1), 1);
        assert_eq!(publish(&answered, ("a", "k"), now + MEMORY / 2, 2), 1);
        assert_eq!(publish(&answered, ("b", "k"), now, 3), 3);
        assert_eq!(publish(&answered, ("ab", "k"), now, 4), 4);
        assert_eq!(publish(&answered, ("a", "bk"), now, 5), 5);
        assert_eq!(publish(&answered, ("a", "k"), now + MEMORY, 6), 6);
        assert_eq!(answered.answers.lock().unwrap().by_name.len(), 1);
    }

    #[test]
    fn over_the_limit_the_oldest_is_forgotten() {
        let (answered, now) = (Answered::new(2), Instant::now());
        for (offset, key) in [(1, "1"), (2, "2"), (3, "3")] {
            publish(&answered, ("a", key), now, offset);
        }
        assert_eq!(publish(&answered, ("a", "2"), now, 4), 2);
        assert_eq!(publish(&answered, ("a", "1"), now, 5), 5);
    }

    #[test]
    fn what_was_refused_may_be_tried_again() {
        let (answered, now) = (Answered::new(2), Instant::now());
        assert_eq!(answered.once("a", "k", now, || Err("refused")), Err("refused"));
        assert_eq!(publish(&answered, ("a", "k"), now, 1), 1);
    }
}
