//! What all nodes are asked together, as no node knows it alone: which channels have subscribers.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::pending::Pending;
use super::queue::Outgoing;
use super::{Broker, Topic, envelope, receipt};
use crate::error::PublishError;
use crate::hub::Inner;
use crate::hub::occupied::{self, Occupied, OccupiedError};
use crate::ring::Audience;

/// What this node asked and is not answered yet.
pub(super) type Surveys = Pending<mpsc::UnboundedSender<Reply>>;

/// What every node is asked.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Question {
    /// The run of the node that asks.
    pub(crate) uid: String,
    pub(crate) number: u64,
    /// What the names of channels must match.
    pub(crate) pattern: Option<String>,
}

/// A part of what a node answers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Reply {
    /// The run of the node that answers.
    pub(crate) uid: String,
    pub(crate) number: u64,
    /// `None` if there are too many.
    pub(crate) occupied: Option<Occupied>,
    /// How many parts the answer has.
    pub(crate) parts: usize,
}

impl Broker {
    /// The channels that have subscribers on any node, of those whose names match.
    pub(crate) async fn occupied(
        &self,
        hub: &Inner,
        pattern: Option<&str>,
    ) -> Result<Occupied, OccupiedError> {
        let (sender, mut replies) = mpsc::unbounded_channel();
        let ticket = self.surveys.wait(sender);
        let nodes = self.presence.nodes();
        // With how many parts each has given.
        let mut silent: HashMap<_, _> = nodes.iter().map(|it| (it.uid().to_owned(), 0)).collect();
        silent.insert(hub.uid.clone(), 0);
        let pattern = pattern.map(str::to_owned);
        let question = Question { uid: hub.uid.clone(), number: ticket.number(), pattern };
        let body = envelope::question_body(&question);
        let asked = receipt(self.queue.send(hub, alone(Topic::All, body), None), drop).await;
        // Asked or not, it is not answered.
        asked.map_err(|_| PublishError::Unavailable)?;
        let collect = async {
            let (mut all, mut bytes) = (Occupied::new(), 0);
            while !silent.is_empty() {
                let Some(Reply { uid, occupied, parts, .. }) = replies.recv().await else { break };
                let Some(given) = silent.get_mut(&uid) else { continue };
                for (name, subscribers) in occupied.ok_or(OccupiedError::TooMany)? {
                    bytes += occupied::bytes_of(&name);
                    let all: &mut usize = all.entry(name).or_default();
                    *all = all.saturating_add(subscribers);
                }
                if bytes > occupied::MAX_BYTES {
                    return Err(OccupiedError::TooMany);
                }
                *given += 1;
                if *given >= parts {
                    silent.remove(&uid);
                }
            }
            Ok(all)
        };
        let collected = tokio::time::timeout(self.timeout, collect).await;
        collected.unwrap_or_else(|_| {
            let silent = Vec::from_iter(silent.into_keys()).join(", ");
            Err(OccupiedError::Silent(silent))
        })
    }

    /// Answers what a node asks, beside what else comes.
    pub(super) fn reply(&self, hub: &Arc<Inner>, question: Question) {
        let hub = hub.clone();
        tokio::spawn(async move {
            let Question { uid, number, pattern } = question;
            let Some(broker) = &hub.broker else { return };
            let Ok(_one_at_a_time) = broker.answering.acquire().await else { return };
            let matcher = pattern.as_deref().map(occupied::matcher).transpose();
            let Ok(matcher) = matcher else { return };
            let parts = match hub.occupied_here(matcher.as_ref()).await {
                Ok(occupied) => parts(occupied),
                Err(_) => vec![None],
            };
            let count = parts.len();
            for occupied in parts {
                let reply = Reply { uid: hub.uid.clone(), number, occupied, parts: count };
                let outgoing =
                    alone(Topic::Node(uid.as_str().into()), envelope::reply_body(&reply));
                let sent = broker.queue.send_patiently(&hub, outgoing);
                // Who asked waits no longer, and says that this node does not answer.
                let Ok(_) = tokio::time::timeout(broker.timeout, sent).await else { return };
            }
        });
    }

    /// Takes what another node, or this one, answers.
    pub(super) fn hear_reply(&self, reply: Reply) {
        // It may just have given up.
        self.surveys.tell(reply.number, |asked| drop(asked.send(reply)));
    }
}

fn alone(topic: Topic, body: bytes::Bytes) -> Outgoing {
    Outgoing { topic, body, remember: None, audience: Audience::Everyone }
}

/// Parts that any broker takes; one at least.
fn parts(occupied: Occupied) -> Vec<Option<Occupied>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Occupied::new(), 0);
    for (name, subscribers) in occupied {
        bytes += occupied::bytes_of(&name);
        part.insert(name, subscribers);
        if bytes > PART_BYTES {
            parts.push(Some(mem::take(&mut part)));
            bytes = 0;
        }
    }
    parts.push(Some(part));
    parts
}

/// Bytes of a part.
const PART_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_all_and_none_is_large() {
        let all: Occupied = (0..9999).map(|i| (format!("channel:{i}"), i)).collect();
        let parts = parts(all.clone());
        assert!(parts.len() > 3);
        assert_eq!(parts.into_iter().flatten().flatten().collect::<Occupied>(), all);
        assert_eq!(super::parts(Occupied::new()), [Some(Occupied::new())]);
    }
}
