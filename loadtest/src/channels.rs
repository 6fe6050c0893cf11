//! The channels of a run: how they are called, and who subscribes to which.

use crate::failure::Failure;

/// So many channels, of which each connection subscribes to some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    count: u32,
    each: u32,
}

impl Channels {
    /// `count` channels, `each` of them for a connection.
    pub(crate) fn new(count: u32, each: u32) -> Result<Self, Failure> {
        if each > count {
            let text = format!("{each} subscriptions need as many channels, not {count}");
            return Err(Failure::Setup(text));
        }
        Ok(Self { count, each })
    }

    /// What a channel is called; every name is as long as any other, so that frames are too.
    pub(crate) fn name(index: u32) -> String {
        format!("load{index:05}")
    }

    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// How many a connection subscribes to.
    pub(crate) fn each(self) -> u32 {
        self.each
    }

    /// Those that the connection of a number subscribes to: each goes on where the last ended.
    pub(crate) fn of(self, connection: u32) -> impl Iterator<Item = u32> {
        let first = u64::from(connection) * u64::from(self.each);
        (first..first + u64::from(self.each)).map(move |n| (n % u64::from(self.count)) as u32)
    }

    /// The one that a publisher's publish of a number goes to: they take turns.
    pub(crate) fn turn(self, sequence: u32) -> u32 {
        sequence % self.count
    }

    /// How many of so many connections each publish reaches.
    pub(crate) fn audience(self, connections: u32) -> Result<u64, Failure> {
        let subscriptions = u64::from(connections) * u64::from(self.each);
        let count = u64::from(self.count);
        if !subscriptions.is_multiple_of(count) {
            return Err(Failure::Setup(format!(
                "{subscriptions} subscriptions do not spread evenly over {count} channels; \
                 use a multiple"
            )));
        }
        Ok(subscriptions / count)
    }
}

/// Channels that names have digits for.
pub(crate) const CHANNELS_MAX: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_spread_evenly() {
        let channels = Channels::new(6, 4).unwrap();
        let mut subscribers = [0; 6];
        let all = (0..9).flat_map(|connection| channels.of(connection));
        all.for_each(|index| subscribers[index as usize] += 1);
        assert_eq!(subscribers, [6; 6]);
        assert_eq!(channels.audience(9).unwrap(), 6);
        assert!(channels.audience(10).is_err());
    }

    #[test]
    fn no_connection_can_subscribe_twice_to_a_channel() {
        assert!(Channels::new(3, 3).is_ok());
        assert!(Channels::new(3, 4).is_err());
    }

    #[test]
    fn names_are_of_one_length() {
        let last = Channels::name(CHANNELS_MAX as u32 - 1);
        assert_eq!(last.len(), Channels::name(0).len());
    }
}
