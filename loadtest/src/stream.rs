//! What one subscriber got of one channel: everything, once, in order, and at the offsets it must have.

use std::time::Duration;

use crate::centrifuge::{Position, Publication, Subscribed};
use crate::channels::Channels;
use crate::mark::Mark;
use crate::trail::{Published, Trail};

/// A subscriber's view of a channel, over all of its connections.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) channel: u32,
    pub(crate) name: String,
    channels: Channels,
    pub(crate) position: Position,
    /// When the last one that came was due, in the clock's nanoseconds.
    due: u64,
    pub(crate) trail: Trail,
    pub(crate) received: u64,
    /// Publications that it missed, and of which the server said that it cannot recover them.
    pub(crate) forgiven: u64,
    /// Publications at another offset than the next.
    misplaced: Slips,
    /// Publications of another channel.
    foreign: Slips,
    /// Recoveries that ended elsewhere than the server said.
    partial: Slips,
    /// Recoveries that were refused though nothing had left the window.
    refused: Slips,
}

/// How often something happened that must not, and how it was the first time.
#[derive(Debug, Default)]
struct Slips {
    count: u64,
    first: String,
}

/// What a subscriber that came back was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comeback {
    Recovered(u64),
    Unrecovered,
}

impl Stream {
    /// A stream of `publishers`, followed from a position on.
    pub(crate) fn new(
        channel: u32,
        channels: Channels,
        publishers: u16,
        position: Position,
    ) -> Self {
        let trail = Trail::new(publishers.into());
        Self {
            channel,
            name: Channels::name(channel),
            channels,
            position,
            due: 0,
            trail,
            received: 0,
            forgiven: 0,
            misplaced: Slips::default(),
            foreign: Slips::default(),
            partial: Slips::default(),
            refused: Slips::default(),
        }
    }

    /// Takes note of a publication.
    pub(crate) fn follow(&mut self, publication: &Publication) {
        let (before, offset) = (self.position.offset, publication.offset);
        let mark = publication.mark();
        let how = || format!("{offset} after {before}, due at {}", seconds(mark.due));
        self.misplaced.note(offset != before + 1, how);
        (self.position.offset, self.due) = (offset, mark.due);
        if self.channels.turn(mark.sequence) != self.channel {
            self.foreign.note(true, || offset.to_string());
            return;
        }
        self.received += 1;
        // Those of a channel are numbered without a gap.
        self.trail.follow(Mark { sequence: mark.sequence / self.channels.count(), ..mark });
    }

    /// Takes note of what is said on a return, where the last `window` publications are recovered.
    pub(crate) fn come_back(&mut self, is: &Subscribed, window: u64) -> Comeback {
        let (Position { offset: before, epoch }, due) = (self.position.clone(), self.due);
        let how = |at: u64| {
            format!("at {at} of {}, after {before} of {epoch}, due at {}", is.epoch, seconds(due))
        };
        let is_same = is.epoch == epoch;
        if is.recovered {
            is.publications.iter().for_each(|publication| self.follow(publication));
            let at = self.position.offset;
            self.partial.note(!is_same || at != is.offset, || how(at));
            return Comeback::Recovered(is.publications.len() as u64);
        }
        let missed = is.offset.saturating_sub(before);
        self.partial.note(!is.publications.is_empty(), || how(is.offset));
        self.refused.note(missed <= window || !is_same, || how(is.offset));
        self.forgiven += missed;
        self.position = Position { offset: is.offset, epoch: is.epoch.clone() };
        Comeback::Unrecovered
    }

    /// Everything that is wrong with it, given what was published on the channel.
    pub(crate) fn faults(&self, published: &[Published]) -> Vec<String> {
        let mut faults = self.trail.faults(published, self.forgiven);
        for (Slips { count, first }, what) in [
            (&self.misplaced, "publications are not at the next offset"),
            (&self.foreign, "publications are another channel's"),
            (&self.partial, "recoveries are not what the server said"),
            (&self.refused, "recoveries are refused inside the window"),
        ] {
            if *count > 0 {
                faults.push(format!("{count} {what}, the first {first}"));
            }
        }
        faults
    }
}

impl Slips {
    fn note(&mut self, is_one: bool, how: impl FnOnce() -> String) {
        if !is_one {
            return;
        }
        if self.count == 0 {
            self.first = how();
        }
        self.count += 1;
    }
}

fn seconds(nanos: u64) -> String {
    format!("{:.3} s", Duration::from_nanos(nanos).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::centrifuge;
    use crate::trail::Refused;

    /// Follows the second of two channels, on which the odd publishes are, from offset 10 on.
    fn stream() -> Stream {
        let position = Position { offset: 10, epoch: "e".to_owned() };
        Stream::new(1, Channels::new(2, 1).unwrap(), 1, position)
    }

    fn publications(list: &[(u64, u32)]) -> String {
        let publication = |(offset, sequence): &(u64, u32)| {
            let mut body = [b'.'; Mark::BYTES];
            Mark { publisher: 0, sequence: *sequence, due: 0 }.write(&mut body);
            let body = String::from_utf8_lossy(&body).into_owned();
            format!(r#"{{"data":{{"body":"{body}"}},"offset":{offset}}}"#)
        };
        list.iter().map(publication).collect::<Vec<_>>().join(",")
    }

    fn follow(stream: &mut Stream, list: &[(u64, u32)]) {
        let push = |one| {
            let publication = publications(&[one]);
            format!(r#"{{"push":{{"channel":"load00001","pub":{publication}}}}}"#)
        };
        for frame in list.iter().copied().map(push) {
            let said = centrifuge::read(frame.as_bytes()).unwrap().remove(0);
            stream.follow(&said.push.unwrap().publication.unwrap());
        }
    }

    fn come_back(stream: &mut Stream, recovered: bool, top: u64, list: &[(u64, u32)]) -> Comeback {
        let list = publications(list);
        let reply = format!(
            r#"{{"id":2,"subscribe":{{"epoch":"e","offset":{top},"was_recovering":true,"recovered":{recovered},"publications":[{list}]}}}}"#
        );
        let said = centrifuge::read(reply.as_bytes()).unwrap().remove(0);
        stream.come_back(&said.subscribe.unwrap(), 2)
    }

    fn faults(stream: &Stream, sent: u32) -> Vec<String> {
        let refused = Refused::Exactly([].into());
        stream.faults(&[Published { name: "it".to_owned(), sent, refused }])
    }

    #[test]
    fn what_is_recovered_goes_on_where_it_was_cut() {
        let mut stream = stream();
        follow(&mut stream, &[(11, 1)]);
        let comeback = come_back(&mut stream, true, 13, &[(12, 3), (13, 5)]);
        assert_eq!(comeback, Comeback::Recovered(2));
        follow(&mut stream, &[(14, 7)]);
        assert_eq!(faults(&stream, 4), [""; 0]);
        assert_eq!(faults(&stream, 5), ["it: 1 are lost"]);
        assert_eq!(stream.received, 4);
    }

    #[test]
    fn a_part_is_no_recovery() {
        let mut stream = stream();
        come_back(&mut stream, true, 12, &[(11, 1)]);
        assert_eq!(
            faults(&stream, 2),
            [
                "it: 1 are lost",
                "1 recoveries are not what the server said, \
                 the first at 11 of e, after 10 of e, due at 0.000 s"
            ]
        );
    }

    #[test]
    fn only_what_has_left_the_window_may_be_given_up() {
        let mut stream = stream();
        assert_eq!(come_back(&mut stream, false, 13, &[]), Comeback::Unrecovered);
        follow(&mut stream, &[(14, 7)]);
        assert_eq!(faults(&stream, 4), [""; 0]);
        assert_eq!(faults(&stream, 5), ["it: 1 are lost"]);
        come_back(&mut stream, false, 16, &[]);
        assert_eq!(
            faults(&stream, 6),
            ["1 recoveries are refused inside the window, \
              the first at 16 of e, after 14 of e, due at 0.000 s"]
        );
    }

    #[test]
    fn what_is_wrong_with_offsets_and_channels_is_found() {
        let mut stream = stream();
        follow(&mut stream, &[(11, 1), (11, 1), (12, 2)]);
        assert_eq!(
            faults(&stream, 1),
            [
                "it: 1 came twice",
                "1 publications are not at the next offset, the first 11 after 11, due at 0.000 s",
                "1 publications are another channel's, the first 12"
            ]
        );
    }
}
