//! All subscribers of an audit.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use tokio::task::JoinSet;

use crate::channels::Channels;
use crate::client::Client;
use crate::counts::Counts;
use crate::failure::Failure;
use crate::fate::Fate;
use crate::nodes::{Host, Nodes};
use crate::opening::Opening;
use crate::restless::Restless;
use crate::stream::Stream;
use crate::target::Target;

/// What all subscribers have in common.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    pub(crate) nodes: Nodes,
    pub(crate) channels: Channels,
    pub(crate) counts: Rc<Counts>,
    pub(crate) publishers: u16,
    /// Publications of a channel that a node must recover.
    pub(crate) window: u64,
    pub(crate) fate: Fate,
}

/// Those who are subscribed.
#[derive(Default)]
pub(crate) struct Everybody {
    pub(crate) streams: Streams,
    /// Ends only by a failure.
    living: JoinSet<Result<Infallible, Failure>>,
}

/// What each subscriber got, of each channel.
pub(crate) type Streams = Vec<Rc<RefCell<Vec<Stream>>>>;

impl Crowd {
    /// One that is to be cut, subscribed from now on.
    async fn open(&self, user: u32) -> Result<(Restless, Client), Failure> {
        let host = self.nodes.first(user);
        let target = self.nodes.target(host).clone().narrow();
        self.subscribe(host, &target, user, self.channels.of(user).collect()).await
    }

    /// One that publishes, subscribed to all channels from now on.
    pub(crate) async fn open_peer(&self, user: u32) -> Result<(Restless, Client), Failure> {
        let host = self.nodes.first(user);
        let target = self.nodes.target(host);
        self.subscribe(host, target, user, (0..self.channels.count()).collect()).await
    }

    async fn subscribe(
        &self,
        host: Host,
        target: &Target,
        user: u32,
        channels: Vec<u32>,
    ) -> Result<(Restless, Client), Failure> {
        let from_now = channels.iter().map(|channel| (*channel, None));
        let (client, subscribed) = target.subscribe(user, from_now).await?;
        let mut streams = Vec::new();
        for (channel, is) in channels.into_iter().zip(subscribed) {
            streams.push(Stream::new(channel, self.channels, self.publishers, is.position()?));
        }
        Ok((Restless::new(self, user, host, streams), client))
    }
}

impl Everybody {
    /// Those that only subscribe, each from now on.
    pub(crate) async fn subscribe(crowd: &Crowd, connections: u32) -> Result<Self, Failure> {
        let crowd = crowd.clone();
        let subscribing = (0..connections).map(move |user| {
            let crowd = crowd.clone();
            async move { crowd.open(user).await }
        });
        let mut everybody = Self::default();
        for (restless, client) in Opening::new(subscribing).all().await? {
            everybody.streams.push(restless.streams.clone());
            everybody.living.spawn_local(restless.run(client));
        }
        Ok(everybody)
    }

    /// Adds one that is never cut.
    pub(crate) fn add_peer(&mut self, peer: Restless, client: Client) {
        self.streams.push(peer.streams.clone());
        self.living.spawn_local(peer.stay(client));
    }

    /// Why the first of them gave up; never without one.
    pub(crate) async fn give_up(&mut self) -> Failure {
        match self.living.join_next().await {
            Some(Ok(Err(failure))) => failure,
            Some(Ok(Ok(never))) => match never {},
            Some(Err(error)) => Failure::Run(error.to_string()),
            None => std::future::pending().await,
        }
    }
}

/// Publications that a node recovers at once at most: of who missed more, nothing else can be asked.
pub(crate) const WINDOW: u64 = 300;
