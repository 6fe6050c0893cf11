//! Subscribers that are cut, stall, and come back to recover what they missed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;

use tokio::time::{Instant, sleep};

use crate::centrifuge::{self, PUBLISH, Position, Push, SUBSCRIBE, Said, Subscribed};
use crate::client::Client;
use crate::counts::{Counts, add, count};
use crate::crowd::Crowd;
use crate::failure::Failure;
use crate::fate::Fate;
use crate::nodes::{Host, Nodes};
use crate::stream::{Comeback, Stream};
use crate::tally::TOO_MANY;

/// One subscriber, over all of its connections.
#[derive(Debug)]
pub(crate) struct Restless {
    nodes: Nodes,
    /// Where its connection is.
    host: Host,
    user: u32,
    /// In the order in which it subscribes to them.
    pub(crate) streams: Rc<RefCell<Vec<Stream>>>,
    pub(crate) answers: Rc<Answers>,
    counts: Rc<Counts>,
    window: u64,
    fate: Fate,
}

/// What the server said to a subscriber's publishes.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) count: Cell<u64>,
    /// Numbers of the publishes that it had no room for.
    pub(crate) refused: RefCell<BTreeSet<u32>>,
}

/// Whether a connection is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Goes,
    /// Something of it is no more, and a new one recovers it.
    Ended(&'static str),
}

impl Restless {
    /// One of a crowd, with what it is subscribed to.
    pub(crate) fn new(crowd: &Crowd, user: u32, host: Host, streams: Vec<Stream>) -> Self {
        Self {
            nodes: crowd.nodes.clone(),
            host,
            user,
            streams: Rc::new(RefCell::new(streams)),
            answers: Rc::default(),
            counts: crowd.counts.clone(),
            window: crowd.window,
            fate: crowd.fate.of(user),
        }
    }

    /// Lives from connection to connection until dropped.
    pub(crate) async fn run(mut self, mut client: Client) -> Result<Infallible, Failure> {
        loop {
            self.live(client).await;
            client = loop {
                sleep(self.fate.away()).await;
                if let Some(client) = self.come_back().await? {
                    break client;
                }
            };
        }
    }

    /// Is never cut, and fails when its connection ends.
    pub(crate) async fn stay(self, mut client: Client) -> Result<Infallible, Failure> {
        let end = self.read(&mut client).await;
        Err(Failure::Run(format!("the connection of a publisher ended: {end}")))
    }

    /// Reads until the node ends the connection or a subscription; returns how.
    async fn read(&self, client: &mut Client) -> String {
        loop {
            match client.next().await {
                Ok(frame) => {
                    if let Use::Ended(why) = self.hear(&frame) {
                        return why.to_owned();
                    }
                }
                Err(_) if !self.nodes.lives(self.host) => return "its node was killed".to_owned(),
                Err(end) => return end.to_string(),
            }
        }
    }

    /// Reads until the connection is cut or the node ends it.
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

    /// Connects to another node; `None` if that is killed meanwhile.
    async fn come_back(&mut self) -> Result<Option<Client>, Failure> {
        self.host = self.nodes.another(self.host, &mut self.fate.dice);
        let target = self.nodes.target(self.host).clone().narrow();
        let client = match target.open(self.user).await {
            Ok(link) => Client::new(link),
            Err(_) if !self.nodes.lives(self.host) => {
                count(&self.counts.ends, "its node was killed as it connected".to_owned());
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let mut frame = centrifuge::connect(&target.token(self.user)?);
        let positions: Vec<(u32, Position)> = {
            let streams = self.streams.borrow();
            streams.iter().map(|stream| (stream.channel, stream.position.clone())).collect()
        };
        let positions = positions.iter().map(|(channel, position)| (*channel, Some(position)));
        centrifuge::subscribe(&mut frame, positions);
        // Whoever reads the connection learns how it ended.
        let _ = client.send(&frame).await;
        Ok(Some(client))
    }

    fn hear(&self, frame: &[u8]) -> Use {
        let Ok(all) = centrifuge::read(frame) else {
            count(&self.counts.faults, "a frame cannot be read".to_owned());
            return Use::Goes;
        };
        let outcomes: Vec<_> = all.into_iter().map(|said| self.note(said)).collect();
        outcomes.into_iter().find(|outcome| *outcome != Use::Goes).unwrap_or(Use::Goes)
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
            if error.code == UNAVAILABLE && self.nodes.are_disturbed() {
                return Use::Ended("a command was refused with error 100");
            }
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
        Use::Ended("a subscription ended")
    }
}

/// The error for what a node cannot do now.
const UNAVAILABLE: u32 = 100;
