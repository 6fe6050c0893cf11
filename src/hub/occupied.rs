//! Which channels have subscribers, on this node and on all.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};

use crate::error::PublishError;
use crate::hub::Inner;

/// Subscribers by channel.
pub(crate) type Occupied = BTreeMap<String, usize>;

/// Why they are not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OccupiedError {
    #[error("{0}")]
    Pattern(#[from] globset::Error),
    #[error("the pattern has over {PATTERN_BYTES} bytes; use a shorter one")]
    LongPattern,
    #[error("too many channels; narrow the pattern")]
    TooMany,
    #[error(
        "a node does not answer: {0}; one that died counts until its lease ends, see broker.lease"
    )]
    Silent(String),
    #[error(transparent)]
    Broker(#[from] PublishError),
}

impl Inner {
    /// The channels that have subscribers on any node, of those whose names match.
    pub(crate) async fn occupied(&self, pattern: Option<&str>) -> Result<Occupied, OccupiedError> {
        let matcher = pattern.map(matcher).transpose()?;
        match &self.broker {
            Some(broker) => broker.occupied(self, pattern).await,
            None => self.occupied_here(matcher.as_ref()).await,
        }
    }

    /// The same of this node.
    pub(crate) async fn occupied_here(
        &self,
        matcher: Option<&GlobMatcher>,
    ) -> Result<Occupied, OccupiedError> {
        let (mut found, mut bytes) = (Occupied::new(), 0);
        for (i, part) in self.channels.occupied().enumerate() {
            for (name, subscribers) in part {
                if matcher.is_none_or(|matcher| matcher.is_match(&*name)) {
                    bytes += bytes_of(&name);
                    found.insert(name.to_string(), subscribers);
                }
            }
            if bytes > MAX_BYTES {
                return Err(OccupiedError::TooMany);
            }
            if i % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }
}

/// What matches names as a pattern of the API says.
pub(crate) fn matcher(pattern: &str) -> Result<GlobMatcher, OccupiedError> {
    if pattern.len() > PATTERN_BYTES {
        return Err(OccupiedError::LongPattern);
    }
    Ok(GlobBuilder::new(pattern).build()?.compile_matcher())
}

/// The longest pattern: what it is compiled to is a thousand times as large.
const PATTERN_BYTES: usize = 256;

/// What a channel takes in an answer.
pub(crate) fn bytes_of(name: &str) -> usize {
    name.len() + COUNT_BYTES
}

/// What a count takes beside the name.
const COUNT_BYTES: usize = 24;

/// The largest answer, of one node and of all.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// Parts after which others have their turn.
const TURN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_short_and_whatever_it_is_compiled() {
        for part in ["?", "*", "[!a]", "[!é]", "{a,b}", "{?,*}", "**/", "é"] {
            let longest = part.repeat(PATTERN_BYTES / part.len());
            assert!(!matches!(matcher(&longest), Err(OccupiedError::LongPattern)), "{part}");
        }
        let long = "?".repeat(PATTERN_BYTES + 1);
        assert!(matches!(matcher(&long), Err(OccupiedError::LongPattern)));
    }
}
