//! Publish to outboxes: the pump, beside the design taken literally.
//!
//! The *literal* variant is one tokio broadcast channel with a receiver per subscriber, each of
//! which clones what it receives into a queue of its own. Neither side has sockets; what is timed
//! is everything between a publish and bytes ready to be sent, and taking them out again.
//! One iteration is one batch of publishes; throughput is deliveries.

#![expect(clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::collections::VecDeque;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::internals::FanOut;
use fanfare::{Identity, Message, UserId};
use tokio::sync::broadcast;

fn fan_out(criterion: &mut Criterion) {
    let payload = "y".repeat(128);
    for batch in [1, 32] {
        let mut group = criterion.benchmark_group(format!("fan-out/{batch} publishes a turn"));
        for subscribers in [1, 100, 10_000] {
            group.throughput(Throughput::Elements((batch * subscribers) as u64));
            group.bench_function(BenchmarkId::new("pump", subscribers), |bencher| {
                let mut fan_out = FanOut::new(subscribers, &Identity::new(UserId::from(1)));
                bencher.iter(|| {
                    for _ in 0..batch {
                        assert!(fan_out.publish(&Message::text(payload.as_str())));
                    }
                    assert_eq!(fan_out.turn(), (batch * subscribers) as u64);
                    fan_out.drain()
                });
            });
            group.bench_function(BenchmarkId::new("literal", subscribers), |bencher| {
                let mut literal = Literal::new(subscribers);
                bencher.iter(|| {
                    for _ in 0..batch {
                        literal.publish(&payload);
                    }
                    literal.receive_all();
                    literal.drain()
                });
            });
        }
        group.finish();
    }
}

/// The same for channels: one with all subscribers, and one for each of them.
fn channels(criterion: &mut Criterion) {
    let data = Bytes::from(format!("\"{}\"", "y".repeat(126)));
    let mut group = criterion.benchmark_group("channels/32 publishes a turn");
    for (channels, subscribers) in [(1, 100), (1, 10_000), (10_000, 10_000)] {
        let batch = 32;
        let each = subscribers / channels;
        group.throughput(Throughput::Elements((batch * each) as u64));
        group.bench_function(BenchmarkId::new(channels.to_string(), subscribers), |bencher| {
            let mut fan_out = FanOut::on_channels(subscribers, channels);
            let mut next = (0..channels).cycle();
            bencher.iter(|| {
                for channel in next.by_ref().take(batch) {
                    assert!(fan_out.publish_to(channel, &data));
                }
                assert_eq!(fan_out.turn(), (batch * each) as u64);
                fan_out.drain()
            });
        });
    }
    group.finish();
}

struct Literal {
    sender: broadcast::Sender<Bytes>,
    subscribers: Vec<(broadcast::Receiver<Bytes>, VecDeque<Bytes>)>,
}

impl Literal {
    fn new(subscribers: usize) -> Self {
        let (sender, _) = broadcast::channel(1024);
        let subscribers = (0..subscribers).map(|_| (sender.subscribe(), VecDeque::new())).collect();
        Self { sender, subscribers }
    }

    fn publish(&self, payload: &str) {
        self.sender.send(Bytes::copy_from_slice(payload.as_bytes())).unwrap();
    }

    fn receive_all(&mut self) {
        for (receiver, queue) in &mut self.subscribers {
            while let Ok(frame) = receiver.try_recv() {
                queue.push_back(frame);
            }
        }
    }

    fn drain(&mut self) -> usize {
        let queues = self.subscribers.iter_mut().map(|(_, queue)| queue);
        queues.map(|queue| queue.drain(..).map(|frame| frame.len()).sum::<usize>()).sum()
    }
}

criterion_group!(benches, fan_out, channels);
criterion_main!(benches);
