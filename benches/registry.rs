//! The user map: look-up and connect, alone and beside a writer, next to `RwLock<HashMap>`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fanfare::UserId;
use fanfare::internals::{ConnectionId, Registry};

const USERS: i32 = 100_000;

trait Map: Send + Sync + 'static {
    fn reach(&self, user: &UserId) -> usize;
    fn connect(&self, user: &UserId, connection: ConnectionId);
    fn disconnect(&self, user: &UserId, connection: ConnectionId);
}

struct Ours(Registry);

impl Map for Ours {
    fn reach(&self, user: &UserId) -> usize {
        self.0.targets(user).map_or(0, |targets| targets.as_slice().len())
    }

    fn connect(&self, user: &UserId, connection: ConnectionId) {
        self.0.connect(user, &"Ada".into(), connection);
    }

    fn disconnect(&self, user: &UserId, connection: ConnectionId) {
        self.0.disconnect(user, connection);
    }
}

#[derive(Default)]
struct Locked(RwLock<HashMap<UserId, Vec<ConnectionId>>>);

impl Map for Locked {
    fn reach(&self, user: &UserId) -> usize {
        self.0.read().unwrap().get(user).map_or(0, Vec::len)
    }

    fn connect(&self, user: &UserId, connection: ConnectionId) {
        self.0.write().unwrap().entry(user.clone()).or_default().push(connection);
    }

    fn disconnect(&self, user: &UserId, connection: ConnectionId) {
        if let Some(connections) = self.0.write().unwrap().get_mut(user) {
            connections.retain(|other| *other != connection);
        }
    }
}

fn maps() -> [(&'static str, Arc<dyn Map>); 2] {
    let ours: Arc<dyn Map> = Arc::new(Ours(Registry::new(Duration::ZERO)));
    let maps = [("arc-swap buckets", ours), ("rwlock", Arc::new(Locked::default()) as _)];
    for (_, map) in &maps {
        for user in 0..USERS {
            map.connect(&user.into(), ConnectionId::fake(user as u32));
        }
    }
    maps
}

fn registry(criterion: &mut Criterion) {
    for (name, map) in maps() {
        let mut user = 0;
        let mut next = move || {
            user = (user + 7919) % USERS;
            UserId::from(user)
        };
        criterion.bench_function(&format!("look-up/{name}"), |bencher| {
            bencher.iter(|| map.reach(&next()));
        });
        criterion.bench_function(&format!("connect and disconnect/{name}"), |bencher| {
            let tab = ConnectionId::fake(u32::MAX);
            bencher.iter(|| {
                let user = next();
                map.connect(&user, tab);
                map.disconnect(&user, tab);
            });
        });
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (map, stop) = (map.clone(), stop.clone());
            move || {
                let tab = ConnectionId::fake(u32::MAX - 1);
                for user in (0..USERS).cycle().map(UserId::from) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    map.connect(&user, tab);
                    map.disconnect(&user, tab);
                }
            }
        });
        criterion.bench_function(&format!("look-up beside a writer/{name}"), |bencher| {
            bencher.iter(|| map.reach(&next()));
        });
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

criterion_group!(benches, registry);
criterion_main!(benches);
