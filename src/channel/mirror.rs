//! Whether a channel of this node has what its stream at the broker has.

use std::time::Instant;

use tokio::sync::oneshot;

use super::history::Position;

/// How a channel stands to its stream. While it is behind nobody may subscribe, and nothing that comes
/// is brought to those who are there: what the stream has is read first, in its order.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    /// When its stream was last asked for what it has, if nothing lacks since.
    asked: Option<Instant>,
    /// The furthest position that came while it was behind, and when.
    seen: Option<(Position, Instant)>,
    /// Whether it has a position in its stream from which it can go on.
    has_position: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Mirror {
    pub(crate) fn is_current(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether it has a position in its stream from which it can go on.
    pub(crate) fn has_position(&self) -> bool {
        self.has_position
    }

    /// Whether the stream was asked since: what it did not have then, nobody can have seen before.
    pub(crate) fn is_of(&self, since: Instant) -> bool {
        self.asked.is_some_and(|asked| asked >= since)
    }

    /// Something lacks, or may.
    pub(crate) fn fall_behind(&mut self) {
        (self.asked, self.seen) = (None, None);
    }

    /// Takes note of a publication that is not brought, as it is behind.
    pub(crate) fn pass_over(&mut self, position: Position) {
        let is_further = |(seen, _): &(Position, _)| {
            position.epoch != seen.epoch || position.offset > seen.offset
        };
        if self.seen.as_ref().is_none_or(is_further) {
            self.seen = Some((position, Instant::now()));
        }
    }

    /// A part of the stream was read, from which it is to go on.
    pub(crate) fn take_position(&mut self) {
        self.has_position = true;
    }

    /// The stream, asked then, had no more than up to a position; false if it has gone on since.
    pub(crate) fn catch_up(&mut self, position: &Position, asked: Instant) -> bool {
        // What came of another stream says nothing of this one, and what came before it was asked was in it
        // then, or never.
        let has_gone_on = |(seen, at): &(Position, Instant)| {
            seen.epoch == position.epoch && seen.offset > position.offset && *at >= asked
        };
        if self.seen.as_ref().is_some_and(has_gone_on) {
            return false;
        }
        (self.asked, self.has_position) = (Some(asked), true);
        for waiting in self.waiting.drain(..) {
            // Who gave up no longer listens.
            let _ = waiting.send(());
        }
        true
    }

    /// Resolves once it is current; with an error if the channel goes before.
    pub(crate) fn caught_up(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(offset: u64, epoch: &str) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    #[test]
    fn what_came_meanwhile_must_be_read_too() {
        let (mut mirror, now) = (Mirror::default(), Instant::now());
        mirror.pass_over(at(7, "e"));
        assert!(!mirror.catch_up(&at(6, "e"), now) && !mirror.is_current());
        let later = now + Duration::from_secs(1);
        assert!(mirror.catch_up(&at(6, "e"), later), "what no read has is not waited for");
        mirror.fall_behind();
        assert!(mirror.catch_up(&at(7, "e"), now) && mirror.is_of(now));
        assert!(!mirror.is_of(now + Duration::from_millis(1)) && mirror.is_current());
        mirror.fall_behind();
        assert!(!mirror.is_current());
    }

    #[test]
    fn what_came_of_another_stream_is_not_waited_for() {
        let mut mirror = Mirror::default();
        mirror.pass_over(at(1000, "gone"));
        assert!(mirror.catch_up(&at(3, "e"), Instant::now()));
    }

    #[test]
    fn who_waits_is_told_once_it_is_current() {
        let mut mirror = Mirror::default();
        let mut waiting = mirror.caught_up();
        assert!(waiting.try_recv().is_err());
        assert!(mirror.catch_up(&at(0, ""), Instant::now()));
        assert_eq!(waiting.try_recv(), Ok(()));
    }
}
