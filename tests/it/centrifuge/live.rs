use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fanfare::config::JoinLeave;
use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn who_is_cut_again_and_again_under_a_publisher_gets_everything_once_and_in_order() {
    const CHANNELS: [&str; 3] = ["news:a", "news:b", "hall:c"];
    let server = TestServer::with_channels(|config| {
        config.server.shards = 2;
        // Joins and leaves, which have no offset, are in the way.
        let mut hall = config.namespaces["news"].clone();
        hall.join_leave = JoinLeave::Client;
        config.namespaces.insert("hall".to_owned(), hall);
    });
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let published = std::thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        let publisher = scope.spawn(|| {
            let mut published = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                // Slow enough that no cut misses 300.
                for channel in CHANNELS {
                    server.publish(channel, &json!(published));
                }
                published += 1;
            }
            published
        });
        let followers: [_; FOLLOWERS] = [1, 2, 3, 4].map(|user| {
            let (server, done) = (&server, &done);
            scope.spawn(move || Follower::new(user, &CHANNELS).follow(server, done))
        });
        let followers = followers.map(|follower| follower.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        let published = publisher.join().unwrap();
        for follower in followers {
            follower.finish(&server, published);
        }
        published
    });
    assert!(published > 100, "only {published} were published");
    assert_eq!(server.metric("fanfare_gaps_total"), 0.0);
}

#[test]
fn a_subscribe_between_publishes_begins_exactly_where_its_reply_says() {
    let server = TestServer::with_channels(|_| {});
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        scope.spawn(|| {
            let mut publisher = server.client(9);
            publisher.subscribe("news:a");
            // As fast as it goes, many in one burst.
            while !is_over.load(Ordering::Relaxed) {
                let publish = json!({"channel": "news:a", "data": 0});
                let commands: Vec<_> =
                    (0..50).map(|_| publisher.command("publish", &publish)).collect();
                publisher.peer.send_text(&commands.join("\n"));
                for _ in 0..50 {
                    publisher.reply();
                }
                publisher.take_pushes();
            }
        });
        for _ in 0..50 {
            let mut client = server.client(1);
            for _ in 0..5 {
                let entered = client.subscribe("news:a");
                let top = entered["offset"].as_u64().unwrap_or(0);
                for next in top + 1..top + 20 {
                    assert_eq!(client.push()["pub"]["offset"], next);
                }
                client.call("unsubscribe", &json!({"channel": "news:a"}));
                client.take_pushes();
            }
        }
    });
}

/// What one user has of some channels, over however many connections.
struct Follower {
    user: i32,
    streams: Vec<Stream>,
}

struct Stream {
    channel: &'static str,
    offset: u64,
    epoch: Value,
}

impl Follower {
    fn new(user: i32, channels: &[&'static str]) -> Self {
        let stream = |channel: &&'static str| Stream { channel, offset: 0, epoch: json!("") };
        Self { user, streams: channels.iter().map(stream).collect() }
    }

    /// Comes and goes until all followers did so often enough, or failed; each connection takes a
    /// few pushes before it is cut, wherever that is.
    fn follow(mut self, server: &TestServer, done: &AtomicUsize) -> Self {
        let mut own = CountOnDrop(Some(done));
        for i in 0.. {
            let mut client = self.connect(server);
            for _ in 0..i * 7 % 40 {
                self.take(&client.push());
            }
            if i == CUTS {
                own.count();
            }
            if done.load(Ordering::Relaxed) == FOLLOWERS {
                break;
            }
        }
        self
    }

    /// Takes all that there is, and that must be as much as was published.
    fn finish(mut self, server: &TestServer, published: u64) {
        drop(self.connect(server));
        for Stream { channel, offset, .. } in &self.streams {
            assert_eq!(*offset, published, "{channel}");
        }
    }

    fn connect(&mut self, server: &TestServer) -> Client {
        let mut client = server.client(self.user);
        for i in 0..self.streams.len() {
            let Stream { channel, offset, ref epoch } = self.streams[i];
            let mut entered = client.recover(channel, offset, epoch);
            assert_eq!(entered["recovered"], true, "{entered}");
            for publication in entered["publications"].as_array().into_iter().flatten() {
                self.streams[i].take(publication);
            }
            let top = entered["offset"].as_u64().unwrap_or(0);
            assert_eq!(self.streams[i].offset, top, "{entered}");
            self.streams[i].epoch = entered["epoch"].take();
        }
        client
    }

    fn take(&mut self, push: &Value) {
        let mut streams = self.streams.iter_mut();
        let stream = streams.find(|stream| push["channel"] == stream.channel).unwrap();
        if let Some(publication) = push.get("pub") {
            stream.take(publication);
        }
    }
}

impl Stream {
    /// The next of the stream, and no other: the number published is one less than its offset.
    fn take(&mut self, publication: &Value) {
        let offset = self.offset + 1;
        assert_eq!(publication["offset"], offset, "{}: {publication}", self.channel);
        assert_eq!(publication["data"], offset - 1, "{}: {publication}", self.channel);
        self.offset = offset;
    }
}

/// Ends what waits for a flag, also when a test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts once, also when a test fails.
struct CountOnDrop<'a>(Option<&'a AtomicUsize>);

impl CountOnDrop<'_> {
    fn count(&mut self) {
        if let Some(counter) = self.0.take() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        self.count();
    }
}

const FOLLOWERS: usize = 4;

const CUTS: usize = 15;
