//! Subscribers that are cut, stall, and come back to recover what they missed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::centrifuge::{self, PUBLISH, Position, Push, SUBSCRIBE, Said, Subscribed};
use crate::channels::Channels;
use crate::cli::Audit;
use crate::client::Client;
use crate::failure::Failure;
use crate::stream::{Comeback, Stream};
use crate::tally::TOO_MANY;
use crate::target::Target;

/// What all subscribers have in common.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    pub(crate) target: Target,
    pub(crate) channels: Channels,
    pub(crate) counts: Rc<Counts>,
    publishers: u16,
    /// Publications of a channel that the server recovers.
    window: u64,
    fate: Fate,
}

/// One subscriber, over all of its connections.
#[derive(Debug)]
pub(crate) struct Restless {
    target: Target,
    user: u32,
    /// In the order in which it subscribes to them.
    pub(crate) streams: Rc<RefCell<Vec<Stream>>>,
    pub(crate) answers: Rc<Answers>,
    counts: Rc<Counts>,
    window: u64,
    fate: Fate,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// How long it lives, on average.
    life: Duration,
    /// How long it does not read, one time of four; else it is cut.
    stall: Duration,
    dice: u64,
}

/// What the server said to a subscriber's publishes.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) count: Cell<u64>,
    /// Numbers of the publishes that it had no room for.
    pub(crate) refused: RefCell<BTreeSet<u32>>,
}

/// What happened to all subscribers together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Set once nobody is to be cut any more.
    pub(crate) is_calm: Cell<bool>,
    pub(crate) cuts: Cell<u64>,
    pub(crate) stalls: Cell<u64>,
    /// Subscriptions that went on where they were, and the publications that they had missed.
    pub(crate) recovered: Cell<u64>,
    pub(crate) publications: Cell<u64>,
    pub(crate) unrecovered: Cell<u64>,
    /// Subscriptions that the server ended, by code.
    pub(crate) unsubscribed: RefCell<BTreeMap<u32, u64>>,
    /// Connections that the server ended, by how.
    pub(crate) ends: RefCell<BTreeMap<String, u64>>,
    /// What the server should not have said.
    pub(crate) faults: RefCell<BTreeMap<String, u64>>,
}

/// Whether a connection is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Goes,
    /// Something of it is no more, and a new one recovers it.
    Ended,
}

impl Crowd {
    pub(crate) fn new(target: &Target, channels: Channels, options: &Audit) -> Self {
        Self {
            target: target.clone(),
            channels,
            counts: Rc::default(),
            publishers: options.publishers,
            window: options.window,
            fate: Fate { life: options.life, stall: options.stall, dice: 0 },
        }
    }

    /// One that is to be cut, subscribed from now on.
    pub(crate) async fn open(&self, user: u32) -> Result<(Restless, Client), Failure> {
        let target = self.target.clone().narrow();
        self.subscribe(target, user, self.channels.of(user).collect()).await
    }

    /// One that publishes, subscribed to all channels from now on.
    pub(crate) async fn open_peer(&self, user: u32) -> Result<(Restless, Client), Failure> {
        self.subscribe(self.target.clone(), user, (0..self.channels.count()).collect()).await
    }

    async fn subscribe(
        &self,
        target: Target,
        user: u32,
        channels: Vec<u32>,
    ) -> Result<(Restless, Client), Failure> {
        let from_now = channels.iter().map(|channel| (*channel, None));
        let (client, subscribed) = target.subscribe(user, from_now).await?;
        let mut streams = Vec::new();
        for (channel, is) in channels.into_iter().zip(subscribed) {
            streams.push(Stream::new(channel, self.channels, self.publishers, is.position()?));
        }
        let restless = Restless {
            target,
            user,
            streams: Rc::new(RefCell::new(streams)),
            answers: Rc::default(),
            counts: self.counts.clone(),
            window: self.window,
            fate: Fate { dice: user.into(), ..self.fate },
        };
        Ok((restless, client))
    }
}

impl Restless {
    /// Lives from connection to connection until dropped.
    pub(crate) async fn run(mut self, mut client: Client) -> Result<Infallible, Failure> {
        loop {
            self.live(client).await;
            let away = self.fate.up_to(AWAY);
            sleep(away).await;
            client = self.come_back().await?;
        }
    }

    /// Is never cut, and fails when its connection ends.
    pub(crate) async fn stay(self, mut client: Client) -> Result<Infallible, Failure> {
        let end = self.read(&mut client).await;
        Err(Failure::Run(format!("the connection of a publisher ended: {end}")))
    }

    /// Reads until the server ends the connection or a subscription; returns how.
    async fn read(&self, client: &mut Client) -> String {
        loop {
            match client.next().await {
                Ok(frame) if self.hear(&frame) == Use::Goes => {}
                Ok(_) => return "a subscription ended".to_owned(),
                Err(end) => return end.to_string(),
            }
        }
    }

    /// Reads until the connection is cut or the server ends it.
    async fn live(&mut self, mut client: Client) {
        let mut end = pin!(sleep(self.fate.life()));
        loop {
            let is_calm = self.counts.is_calm.get();
            tokio::select! {
                () = &mut end, if !is_calm => {
                    if !self.fate.is_stall() {
                        add(&self.counts.cuts, 1);
                        return;
                    }
                    add(&self.counts.stalls, 1);
                    sleep(self.fate.stall).await;
                    end.as_mut().reset(Instant::now() + self.fate.life());
                }
                ended = self.read(&mut client) => {
                    return count(&self.counts.ends, ended);
                }
            }
        }
    }

    async fn come_back(&self) -> Result<Client, Failure> {
        let client = Client::new(self.target.open(self.user).await?);
        let mut frame = centrifuge::connect(&self.target.token(self.user)?);
        let positions: Vec<(u32, Position)> = {
            let streams = self.streams.borrow();
            streams.iter().map(|stream| (stream.channel, stream.position.clone())).collect()
        };
        let positions = positions.iter().map(|(channel, position)| (*channel, Some(position)));
        centrifuge::subscribe(&mut frame, positions);
        // Whoever reads the connection learns how it ended.
        let _ = client.send(&frame).await;
        Ok(client)
    }

    fn hear(&self, frame: &[u8]) -> Use {
        let Ok(all) = centrifuge::read(frame) else {
            count(&self.counts.faults, "a frame cannot be read".to_owned());
            return Use::Goes;
        };
        let outcomes: Vec<_> = all.into_iter().map(|said| self.note(said)).collect();
        if outcomes.contains(&Use::Ended) { Use::Ended } else { Use::Goes }
    }

    fn note(&self, said: Said) -> Use {
        if let Some(sequence) = said.id.checked_sub(PUBLISH) {
            add(&self.answers.count, 1);
            if said.error.as_ref().is_some_and(|error| error.code == TOO_MANY) {
                self.answers.refused.borrow_mut().insert(sequence);
                return Use::Goes;
            }
        }
        if let Some(error) = said.error {
            let fault = format!("error {} to command {}", error.code, said.id.min(PUBLISH));
            count(&self.counts.faults, fault);
        }
        if let Some((is, place)) = said.subscribe.zip(said.id.checked_sub(SUBSCRIBE)) {
            self.note_comeback(place, &is);
        }
        said.push.map_or(Use::Goes, |push| self.note_push(push))
    }

    /// Takes note of the reply to the subscribe command of a place in the frame.
    fn note_comeback(&self, place: u32, is: &Subscribed) {
        let mut streams = self.streams.borrow_mut();
        let Some(stream) = streams.get_mut(place as usize) else { return };
        match stream.come_back(is, self.window) {
            Comeback::Recovered(publications) => {
                add(&self.counts.recovered, 1);
                add(&self.counts.publications, publications);
            }
            Comeback::Unrecovered => add(&self.counts.unrecovered, 1),
        }
    }

    fn note_push(&self, push: Push) -> Use {
        if let Some(publication) = push.publication {
            let mut streams = self.streams.borrow_mut();
            match streams.iter_mut().find(|stream| stream.name == push.channel) {
                Some(stream) => stream.follow(&publication),
                None => count(&self.counts.faults, "a channel is not subscribed to".to_owned()),
            }
        }
        let Some(ended) = push.unsubscribe else { return Use::Goes };
        count(&self.counts.unsubscribed, ended.code);
        Use::Ended
    }
}

impl Fate {
    /// Anything up to twice the average.
    fn life(&mut self) -> Duration {
        self.up_to(self.life * 2)
    }

    fn is_stall(&mut self) -> bool {
        self.roll().is_multiple_of(4)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.roll() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// The same for every run (SplitMix64).
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.dice ^ self.dice >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

fn count<K: Ord>(counts: &RefCell<BTreeMap<K, u64>>, what: K) {
    *counts.borrow_mut().entry(what).or_default() += 1;
}

/// How long somebody who was cut stays away at most.
const AWAY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_as_long_as_it_should_be_on_average_and_one_of_four_ends_in_a_stall() {
        let life = Duration::from_secs(2);
        let mut fate = Fate { life, stall: life, dice: 7 };
        let lives: Vec<_> = (0..10_000).map(|_| fate.life()).collect();
        assert!(lives.iter().all(|one| *one < 2 * life));
        let average = lives.iter().sum::<Duration>().as_secs_f64() / 10_000.0;
        assert!((1.9..2.1).contains(&average), "{average}");
        let stalls = (0..10_000).filter(|_| fate.is_stall()).count();
        assert!((2_300..2_700).contains(&stalls), "{stalls}");
    }
}
