//! The user map: look-up and connect, alone and beside a writer, next to `RwLock<HashMap>`.

#![expect(clippy::unwrap_used, reason = "a bench that fails may panic")]

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
        measure(criterion, &format!("alone/{name}"), &map);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (map, stop) = (map.clone(), stop.clone());
            move || {
                for user in (0..USERS).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                    come_and_go(&*map, &user.into(), ConnectionId::fake(u32::MAX - 1));
                }
            }
        });
        measure(criterion, &format!("beside a writer/{name}"), &map);
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

fn measure(criterion: &mut Criterion, name: &str, map: &Arc<dyn Map>) {
    let mut user = 0;
    let mut next = move || {
        user = (user + 7919) % USERS;
        UserId::from(user)
    };
    criterion.bench_function(&format!("look-up {name}"), |bencher| {
        bencher.iter(|| map.reach(&next()));
    });
    criterion.bench_function(&format!("connect and disconnect {name}"), |bencher| {
        bencher.iter(|| come_and_go(&**map, &next(), ConnectionId::fake(u32::MAX)));
    });
}

fn come_and_go(map: &dyn Map, user: &UserId, connection: ConnectionId) {
    map.connect(user, connection);
    map.disconnect(user, connection);
}

criterion_group!(benches, registry);
criterion_main!(benches);
