//! Who publishes to channels while they are audited, and what the server said to that.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::backend::Backend;
use crate::channels::Channels;
use crate::failure::Failure;
use crate::publisher::Sent;
use crate::restless::Answers;
use crate::trail::{Published, Refused};

/// What a publisher did.
#[derive(Debug)]
pub(crate) struct Author {
    pub(crate) name: String,
    pub(crate) sent: Rc<Sent>,
    pub(crate) over: Over,
}

/// How it publishes, and the answers to that.
#[derive(Debug)]
pub(crate) enum Over {
    /// A subscriber of all channels.
    Peer(Rc<Answers>),
    Http(Backend),
    /// To a cluster, until each publish was accepted.
    Insistent,
}

impl Author {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.count.get()
    }

    /// Waits until all that it published is answered.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let answers = match &self.over {
            Over::Http(backend) => return backend.answers.wait(self.sent()).await,
            Over::Insistent => return Ok(()),
            Over::Peer(answers) => answers,
        };
        let answered = async {
            while answers.count.get() < self.sent() {
                sleep(TICK).await;
            }
        };
        timeout(PATIENCE, answered).await.map_err(|_| {
            let left = self.sent() - answers.count.get();
            Failure::Run(format!("the server leaves {left} publishes of {} unanswered", self.name))
        })
    }

    /// What of it was on one of the channels, numbered without a gap.
    pub(crate) fn published(&self, channel: u32, channels: Channels) -> Published {
        let is_on = |sequence: &&u32| channels.turn(**sequence) == channel;
        let number = |sequence: &u32| sequence / channels.count();
        let on = |all: &mut dyn Iterator<Item = &u32>| -> BTreeSet<u32> {
            all.filter(is_on).map(number).collect()
        };
        let refused = match &self.over {
            Over::Peer(answers) => on(&mut answers.refused.borrow().iter()),
            Over::Http(backend) => on(&mut backend.answers.refused.borrow().iter()),
            Over::Insistent => BTreeSet::new(),
        };
        let sent = (self.sent() as u32 + channels.count() - 1 - channel) / channels.count();
        Published { name: self.name.clone(), sent, refused: Refused::Exactly(refused) }
    }
}

const TICK: Duration = Duration::from_millis(20);

/// How long answers may take: more than the server's limits.publish_wait.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_was_published_is_told_apart_by_channel() {
        let answers = Answers::default();
        answers.refused.borrow_mut().extend([1, 3, 7]);
        let sent = Rc::new(Sent { count: Cell::new(8), ..Sent::default() });
        let over = Over::Peer(Rc::new(answers));
        let author = Author { name: "it".to_owned(), sent, over };
        let channels = Channels::new(3, 1).unwrap();
        // 0 3 6, 1 4 7, 2 5.
        for (channel, sent, refused) in [(0, 3, &[1][..]), (1, 3, &[0, 2]), (2, 2, &[])] {
            let published = author.published(channel, channels);
            assert_eq!(published.sent, sent);
            let Refused::Exactly(which) = published.refused else { panic!() };
            assert!(which.iter().eq(refused), "{which:?}");
        }
    }
}
