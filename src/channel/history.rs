//! What a channel remembers: its latest publications, and where its stream stands.
//!
//! Offsets count up from 1 within an epoch and never skip, so a reader that names the last offset
//! it saw is either given everything after it or told that this is not possible; never a part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::publication::Publication;
use crate::ring::ENTRY_BYTES;

/// A place in a channel's stream: after the publication of that offset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    /// Which stream is meant; a reader that names none means whichever there is.
    pub(crate) epoch: Arc<str>,
}

/// How much is remembered. Without either there is no history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Publications.
    pub(crate) size: usize,
    /// How long each of them.
    pub(crate) ttl: Duration,
}

impl Window {
    /// Whether anything is remembered at all.
    pub(crate) fn is_open(self) -> bool {
        self.size > 0 && !self.ttl.is_zero()
    }
}

/// Which part of a history is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// Publications at most; 0 asks for the position alone.
    pub(crate) limit: usize,
    /// Bytes at most; the first publication is given however large.
    pub(crate) max_bytes: usize,
    /// Only what lies after it or, in reverse, before it.
    pub(crate) since: Option<Position>,
    /// The newest first.
    pub(crate) reverse: bool,
}

/// The reader's position is not one of this stream, or what follows it is no longer whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unrecoverable;

/// A channel's latest publications.
#[derive(Debug)]
pub(crate) struct History {
    top: u64,
    epoch: Arc<str>,
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    publication: Arc<Publication>,
    until: Instant,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.publication.size() + ENTRY_BYTES
    }
}

impl History {
    /// An empty stream.
    pub(crate) fn new(epoch: Arc<str>) -> Self {
        Self { top: 0, epoch, kept: VecDeque::new(), bytes: 0 }
    }

    /// A stream that stands at a position, and of which nothing up to there is kept.
    pub(crate) fn at(position: Position) -> Self {
        Self { top: position.offset, ..Self::new(position.epoch) }
    }

    /// Which stream it is.
    pub(crate) fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// Where the stream stands.
    pub(crate) fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch.clone() }
    }

    /// The place that the next publication takes.
    pub(crate) fn next(&self) -> Position {
        Position { offset: self.next_offset(), epoch: self.epoch.clone() }
    }

    /// The offset that the next publication takes.
    pub(crate) fn next_offset(&self) -> u64 {
        self.top + 1
    }

    /// Bytes of what is kept, each publication counting [`ENTRY_BYTES`] more.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the publication that took the next offset, and keeps what the window and
    /// `max_bytes` allow.
    pub(crate) fn append(
        &mut self,
        publication: &Arc<Publication>,
        window: Window,
        max_bytes: usize,
        now: Instant,
    ) {
        debug_assert_eq!(publication.offset, self.next_offset());
        self.top = publication.offset;
        let kept = Kept { publication: publication.clone(), until: now + window.ttl };
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
        self.expire(now);
        while self.kept.len() > window.size || self.bytes > max_bytes {
            self.forget_oldest();
        }
    }

    /// Lets go of what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.kept.front().is_some_and(|kept| kept.until <= now) {
            self.forget_oldest();
        }
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// Lets go of everything; the position stays.
    pub(crate) fn clear(&mut self) {
        (self.kept, self.bytes) = (VecDeque::new(), 0);
    }

    /// All publications after a position, if they are all there and at most `max`.
    pub(crate) fn recover(
        &self,
        from: &Position,
        max: usize,
    ) -> Result<impl ExactSizeIterator<Item = &Arc<Publication>> + use<'_>, Unrecoverable> {
        let missed = self.missed_since(from)?;
        if missed > max.min(self.kept.len()) {
            return Err(Unrecoverable);
        }
        Ok(self.publications(self.kept.len() - missed, self.kept.len()))
    }

    /// The latest publication.
    pub(crate) fn latest(&self) -> Option<&Arc<Publication>> {
        self.kept.back().map(|kept| &kept.publication)
    }

    /// The latest publication, for a reader that wants no other and has the one at `from`: none if
    /// that is the latest.
    pub(crate) fn refresh(
        &self,
        from: &Position,
    ) -> Result<Option<&Arc<Publication>>, Unrecoverable> {
        let latest = self.latest().ok_or(Unrecoverable)?;
        Ok((*from != self.position()).then_some(latest))
    }

    /// A page of what is kept.
    pub(crate) fn page(&self, page: &Page) -> Result<Vec<Arc<Publication>>, Unrecoverable> {
        let (mut begin, mut end) = (0, self.kept.len());
        if let Some(since) = &page.since {
            let after = end.saturating_sub(self.missed_since(since)?);
            if page.reverse {
                // Before the position: the publication of that offset is not part of it.
                end =
                    if since.offset > self.top - end as u64 { after.saturating_sub(1) } else { 0 };
            } else {
                begin = after;
            }
        }
        let limit = page.limit.min(end.saturating_sub(begin));
        let mut bytes = 0;
        let fits = |publication: &&Arc<Publication>| {
            let is_first = bytes == 0;
            bytes += publication.size() + ENTRY_BYTES;
            is_first || bytes <= page.max_bytes
        };
        Ok(if page.reverse {
            self.publications(end - limit, end).rev().take_while(fits).cloned().collect()
        } else {
            self.publications(begin, begin + limit).take_while(fits).cloned().collect()
        })
    }

    /// How many publications a position lacks of the stream.
    fn missed_since(&self, position: &Position) -> Result<usize, Unrecoverable> {
        let is_of_this_stream = position.epoch.is_empty() || position.epoch == self.epoch;
        let missed = self.top.checked_sub(position.offset).filter(|_| is_of_this_stream);
        missed.and_then(|missed| usize::try_from(missed).ok()).ok_or(Unrecoverable)
    }

    fn publications(
        &self,
        begin: usize,
        end: usize,
    ) -> impl ExactSizeIterator<Item = &Arc<Publication>> + DoubleEndedIterator {
        self.kept.range(begin..end).map(|kept| &kept.publication)
    }

    fn forget_oldest(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn history() -> History {
        History::new("e".into())
    }

    fn publish(history: &mut History, window: Window, max_bytes: usize, now: Instant) {
        let publication = Publication::new("12".into()).at(&"c".into(), history.next());
        history.append(&Arc::new(publication), window, max_bytes, now);
    }

    fn position(offset: u64, epoch: &str) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    fn recovered(history: &History, offset: u64, max: usize) -> Option<Vec<u64>> {
        let publications = history.recover(&position(offset, ""), max).ok()?;
        Some(publications.map(|publication| publication.offset).collect())
    }

    fn paged(history: &History, limit: usize, since: Option<u64>, reverse: bool) -> Vec<u64> {
        let since = since.map(|offset| position(offset, "e"));
        let page = Page { limit, max_bytes: usize::MAX, since, reverse };
        let page = history.page(&page).unwrap();
        page.iter().map(|publication| publication.offset).collect()
    }

    #[test]
    fn recovery_is_whole_or_refused() {
        let (mut history, now) = (history(), Instant::now());
        let window = Window { size: 3, ttl: MINUTE };
        assert_eq!(recovered(&history, 0, 10), Some(vec![]));
        for _ in 0..5 {
            publish(&mut history, window, usize::MAX, now);
        }
        assert_eq!(recovered(&history, 5, 10), Some(vec![]));
        assert_eq!(recovered(&history, 2, 10), Some(vec![3, 4, 5]));
        assert_eq!(recovered(&history, 2, 2), None);
        assert_eq!(recovered(&history, 1, 10), None);
        assert_eq!(recovered(&history, 6, 10), None);
        assert!(history.recover(&position(5, "e"), 10).is_ok());
        assert!(history.recover(&position(5, "other"), 10).is_err());
    }

    #[test]
    fn what_is_too_old_is_forgotten_and_the_position_stays() {
        let (mut history, start) = (history(), Instant::now());
        let window = Window { size: 9, ttl: MINUTE };
        publish(&mut history, window, usize::MAX, start);
        publish(&mut history, window, usize::MAX, start + MINUTE / 2);
        history.expire(start + MINUTE);
        assert_eq!(recovered(&history, 1, 10), Some(vec![2]));
        assert_eq!(recovered(&history, 0, 10), None);
        history.expire(start + MINUTE * 2);
        assert_eq!((history.latest().is_none(), history.bytes()), (true, 0));
        assert_eq!(recovered(&history, 2, 10), Some(vec![]));
        assert_eq!(recovered(&history, 1, 10), None);
    }

    #[test]
    fn bytes_are_bounded_and_each_publication_counts_more() {
        let (mut history, now) = (history(), Instant::now());
        let window = Window { size: 9, ttl: MINUTE };
        for _ in 0..4 {
            publish(&mut history, window, 2 * (2 + ENTRY_BYTES), now);
        }
        assert_eq!(history.bytes(), 2 * (2 + ENTRY_BYTES));
        assert_eq!(recovered(&history, 2, 10), Some(vec![3, 4]));
        publish(&mut history, window, 10, now);
        assert_eq!((history.bytes(), recovered(&history, 4, 10)), (0, None));
    }

    #[test]
    fn who_wants_the_latest_alone_is_given_it_once() {
        let (mut history, now) = (history(), Instant::now());
        let refresh = |history: &History, from: &Position| {
            history.refresh(from).map(|latest| latest.map(|publication| publication.offset))
        };
        assert_eq!(refresh(&history, &position(0, "")), Err(Unrecoverable));
        for _ in 0..2 {
            publish(&mut history, Window { size: 1, ttl: MINUTE }, usize::MAX, now);
        }
        assert_eq!(refresh(&history, &position(1, "e")), Ok(Some(2)));
        assert_eq!(refresh(&history, &position(2, "other")), Ok(Some(2)));
        assert_eq!(refresh(&history, &position(2, "e")), Ok(None));
    }

    #[test]
    fn pages_go_either_way_from_a_position_or_an_end() {
        let (mut history, now) = (history(), Instant::now());
        for _ in 0..5 {
            publish(&mut history, Window { size: 3, ttl: MINUTE }, usize::MAX, now);
        }
        assert_eq!(paged(&history, 0, None, false), [0; 0]);
        assert_eq!(paged(&history, 2, None, false), [3, 4]);
        assert_eq!(paged(&history, 2, None, true), [5, 4]);
        assert_eq!(paged(&history, 9, Some(3), false), [4, 5]);
        assert_eq!(paged(&history, 1, Some(0), false), [3]);
        assert_eq!(paged(&history, 9, Some(5), true), [4, 3]);
        assert_eq!(paged(&history, 9, Some(3), true), [0; 0]);
        assert_eq!(paged(&history, 9, Some(1), true), [0; 0]);
        let page = Page { limit: 1, since: Some(position(6, "e")), ..Page::default() };
        assert!(history.page(&page).is_err());
    }

    #[test]
    fn a_page_is_bounded_in_bytes_and_never_empty_for_that() {
        let (mut history, now) = (history(), Instant::now());
        for _ in 0..5 {
            publish(&mut history, Window { size: 5, ttl: MINUTE }, usize::MAX, now);
        }
        let paged = |max_bytes, reverse| {
            let page = history.page(&Page { limit: 9, max_bytes, since: None, reverse }).unwrap();
            page.iter().map(|publication| publication.offset).collect::<Vec<_>>()
        };
        assert_eq!(paged(2 * (2 + ENTRY_BYTES), false), [1, 2]);
        assert_eq!(paged(2 * (2 + ENTRY_BYTES), true), [5, 4]);
        assert_eq!(paged(1, false), [1]);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Publish,
        Pass(u8),
        Recover { behind: u64, max: usize },
        Clear,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => Just(Operation::Publish),
            1 => (0u8..40).prop_map(Operation::Pass),
            3 => (0u64..12, 0usize..12).prop_map(|(behind, max)| Operation::Recover { behind, max }),
            1 => Just(Operation::Clear),
        ]
    }

    proptest! {
        /// Against a model that remembers all: what is recovered is all that was published since,
        /// and a refusal has its reason in size, age or bound.
        #[test]
        fn agrees_with_a_model_that_remembers_all(
            operations in prop::collection::vec(operation(), 1..80),
            size in 0usize..8,
        ) {
            let window = Window { size, ttl: MINUTE };
            let (mut history, mut now) = (history(), Instant::now());
            let mut published: Vec<Instant> = Vec::new();
            let mut cleared = 0;
            for operation in operations {
                match operation {
                    Operation::Publish => {
                        publish(&mut history, window, usize::MAX, now);
                        published.push(now);
                    }
                    Operation::Pass(seconds) => {
                        now += Duration::from_secs(seconds.into());
                        history.expire(now);
                    }
                    Operation::Clear => {
                        history.clear();
                        cleared = published.len();
                    }
                    Operation::Recover { behind, max } => {
                        let top = published.len() as u64;
                        let Some(from) = top.checked_sub(behind) else { continue };
                        let missed: Vec<u64> = (from + 1..=top).collect();
                        let is_kept = |offset: &u64| {
                            let index = *offset as usize - 1;
                            index >= cleared
                                && index + size >= published.len()
                                && published[index] + MINUTE > now
                        };
                        let is_whole = missed.len() <= max && missed.iter().all(is_kept);
                        prop_assert_eq!(recovered(&history, from, max), is_whole.then_some(missed));
                    }
                }
            }
        }
    }
}
