//! The whole server against a model that remembers everything.

use std::collections::BTreeMap;

use fanfare::config::Recovery;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever clients do: each gets all of a channel from where its subscription began, once and
    /// in order; who comes back gets all that it missed, or is told that this is not possible, and
    /// that only if it is not; and history and presence are what the model has.
    #[test]
    fn agrees_with_a_model_that_remembers_everything(
        size in 1_usize..6,
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let server = TestServer::with_channels(|config| {
            config.server.shards = 2;
            if let Some(news) = config.namespaces.get_mut("news") {
                (news.history_size, news.recovery) = (size, Recovery::Stream);
            }
        });
        let mut world = World::new(&server, size);
        for operation in operations {
            world.perform(operation);
        }
        world.settle();
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    /// A backend publishes.
    Publish(usize),
    /// A client publishes, if it is subscribed.
    Say(usize, usize),
    /// A client subscribes, from where it was if it ever was there.
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    /// A client's connection is cut, and it connects again.
    Cut(usize),
    /// A client that is subscribed reads history and presence.
    Look(usize, usize),
    /// A backend has a channel forget its publications.
    Clear(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let (client, channel) = (0..CLIENTS, 0..CHANNELS);
    let both = (client.clone(), channel.clone());
    prop_oneof![
        4 => channel.clone().prop_map(Operation::Publish),
        2 => both.clone().prop_map(|(client, channel)| Operation::Say(client, channel)),
        5 => both.clone().prop_map(|(client, channel)| Operation::Subscribe(client, channel)),
        2 => both.clone().prop_map(|(client, channel)| Operation::Unsubscribe(client, channel)),
        2 => client.prop_map(Operation::Cut),
        2 => both.prop_map(|(client, channel)| Operation::Look(client, channel)),
        1 => channel.prop_map(Operation::Clear),
    ]
}

/// The server, its clients, and what they should have.
struct World<'a> {
    server: &'a TestServer,
    size: usize,
    channels: [Stream; CHANNELS],
    people: Vec<Person>,
}

/// A channel as the model has it: all that was ever published, of which some is forgotten.
#[derive(Default)]
struct Stream {
    published: Vec<Value>,
    forgotten: usize,
}

impl Stream {
    fn top(&self) -> u64 {
        self.published.len() as u64
    }

    /// The index of the first publication that is remembered.
    fn begin(&self, size: usize) -> usize {
        self.forgotten.max(self.published.len().saturating_sub(size))
    }

    /// Notes what a backend publishes next.
    fn next_data(&mut self) -> Value {
        let data = json!({"number": self.published.len()});
        self.published.push(data.clone());
        data
    }
}

struct Person {
    client: Client,
    name: String,
    /// Where it is or was on each channel.
    places: BTreeMap<usize, Place>,
}

struct Place {
    offset: u64,
    epoch: Value,
    is_subscribed: bool,
}

impl<'a> World<'a> {
    fn new(server: &'a TestServer, size: usize) -> Self {
        let person = |user| {
            let (client, name) = connect(server, user);
            Person { client, name, places: BTreeMap::new() }
        };
        let people = (0..CLIENTS).map(person).collect();
        Self { server, size, channels: Default::default(), people }
    }

    fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Publish(channel) => {
                let data = self.channels[channel].next_data();
                self.server.publish(&name(channel), &data);
            }
            Operation::Say(client, channel) => self.say(client, channel),
            Operation::Subscribe(client, channel) => self.subscribe(client, channel),
            Operation::Unsubscribe(client, channel) => self.unsubscribe(client, channel),
            Operation::Cut(client) => self.cut(client),
            Operation::Look(client, channel) => self.look(client, channel),
            Operation::Clear(channel) => {
                let body = json!({"channel": name(channel)}).to_string();
                assert_eq!(self.server.api("history_remove", &body).0, 200);
                let stream = &mut self.channels[channel];
                stream.forgotten = stream.published.len();
            }
        }
    }

    fn say(&mut self, client: usize, channel: usize) {
        let person = &mut self.people[client];
        let data = json!({"by": person.name});
        let body = json!({"channel": name(channel), "data": data});
        if person.is_subscribed(channel) {
            person.client.call("publish", &body);
            self.channels[channel].published.push(data);
        }
    }

    fn subscribe(&mut self, client: usize, channel: usize) {
        let (person, stream) = (&mut self.people[client], &self.channels[channel]);
        if person.is_subscribed(channel) {
            // A refusal is for other tests: the tenth would close the connection.
            return;
        }
        let Some(place) = person.places.get(&channel) else {
            let entered = person.client.subscribe(&name(channel));
            assert_eq!(entered["offset"].as_u64().unwrap_or(0), stream.top());
            person.enter(channel, &entered);
            return;
        };
        let entered = person.client.recover(&name(channel), place.offset, &place.epoch);
        assert_eq!(entered["epoch"], place.epoch);
        assert_eq!(entered["offset"].as_u64().unwrap_or(0), stream.top());
        let missed = &stream.published[place.offset as usize..];
        let is_whole = place.offset as usize >= stream.begin(self.size);
        assert_eq!(entered.get("recovered"), is_whole.then_some(&json!(true)), "{entered}");
        assert_eq!(data(&entered["publications"]), if is_whole { missed } else { &[] });
        person.enter(channel, &entered);
    }

    fn unsubscribe(&mut self, client: usize, channel: usize) {
        self.people[client].client.call("unsubscribe", &json!({"channel": name(channel)}));
        // All that it was sent comes before the reply.
        self.hear(client);
        if let Some(place) = self.people[client].places.get_mut(&channel) {
            place.is_subscribed = false;
        }
    }

    fn cut(&mut self, client: usize) {
        self.hear(client);
        let (connection, name) = connect(self.server, client);
        let person = &mut self.people[client];
        (person.client, person.name) = (connection, name);
        person.places.values_mut().for_each(|place| place.is_subscribed = false);
    }

    fn look(&mut self, client: usize, channel: usize) {
        let (size, stream) = (self.size, &self.channels[channel]);
        let person = &mut self.people[client];
        let page = json!({"channel": name(channel), "limit": -1});
        if !person.is_subscribed(channel) {
            return;
        }
        let history = person.client.call("history", &page);
        assert_eq!(data(&history["publications"]), stream.published[stream.begin(size)..]);
        assert_eq!(history["offset"], stream.top());
        let mut present: Vec<_> = self
            .people
            .iter()
            .filter(|it| it.is_subscribed(channel))
            .map(|it| it.name.clone())
            .collect();
        present.sort();
        let person = &mut self.people[client];
        // Those that were cut leave when their shard finds out.
        wait_until("presence is what the model has", || {
            let presence = person.client.call("presence", &json!({"channel": name(channel)}));
            presence["presence"].as_object().unwrap().keys().eq(&present)
        });
    }

    /// Takes in what a client was sent so far.
    fn hear(&mut self, client: usize) {
        let person = &mut self.people[client];
        for push in person.client.take_pushes() {
            person.take(&push, &self.channels);
        }
    }

    /// Everyone must have come to where the channels are.
    fn settle(&mut self) {
        for client in 0..CLIENTS {
            for channel in 0..CHANNELS {
                let top = self.channels[channel].top();
                while self.people[client].is_subscribed(channel)
                    && self.people[client].places[&channel].offset < top
                {
                    let push = self.people[client].client.push();
                    self.people[client].take(&push, &self.channels);
                    self.hear(client);
                }
            }
        }
    }
}

impl Person {
    fn is_subscribed(&self, channel: usize) -> bool {
        self.places.get(&channel).is_some_and(|place| place.is_subscribed)
    }

    /// Takes in a push, which must be the channel's next.
    fn take(&mut self, push: &Value, channels: &[Stream]) {
        let channel = (0..CHANNELS).find(|channel| push["channel"] == name(*channel)).unwrap();
        let place = self.places.get_mut(&channel).unwrap();
        assert_eq!(push["pub"]["offset"], place.offset + 1, "{push}");
        assert_eq!(
            push["pub"]["data"], channels[channel].published[place.offset as usize],
            "{push}"
        );
        place.offset += 1;
    }

    fn enter(&mut self, channel: usize, entered: &Value) {
        let offset = entered["offset"].as_u64().unwrap_or(0);
        let place = Place { offset, epoch: entered["epoch"].clone(), is_subscribed: true };
        self.places.insert(channel, place);
    }
}

/// A client, and the name of its connection.
fn connect(server: &TestServer, user: usize) -> (Client, String) {
    let mut client = server.stranger();
    let token = sign(&json!({"sub": user.to_string()}));
    let connected = client.call("connect", &json!({"token": token}));
    (client, connected["client"].as_str().unwrap().to_owned())
}

fn name(channel: usize) -> String {
    format!("news:{channel}")
}

const CLIENTS: usize = 3;

const CHANNELS: usize = 2;
