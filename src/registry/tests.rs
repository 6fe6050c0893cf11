//! The map beside a model of it, and beside threads that change it.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn connection(generation: u32) -> ConnectionId {
    ConnectionId { shard: 0, slot: generation % 3, generation }
}

fn name() -> Arc<str> {
    "Ada".into()
}

#[test]
fn a_user_is_announced_once_however_many_tabs() {
    let registry = Registry::new(Duration::ZERO);
    let user = UserId::from(42);
    assert_eq!(registry.connect(&user, &name(), connection(1)), Duty::Settle);
    assert_eq!(registry.connect(&user, &name(), connection(2)), Duty::None);
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Joined(name()));
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
    assert_eq!(registry.connect(&user, &name(), connection(3)), Duty::None);
    assert_eq!(registry.targets(&user).unwrap().as_slice().len(), 3);
    assert_eq!((registry.active_users(), registry.present_users()), (1, 1));
}

#[test]
fn a_return_within_the_linger_tells_nothing() {
    let registry = Registry::new(Duration::from_secs(2));
    let user = UserId::from(42);
    registry.connect(&user, &name(), connection(1));
    while registry.settle(&user, Instant::now()) != Presence::Settled {}
    assert_eq!(registry.disconnect(&user, connection(1)), Duty::Settle);
    assert_eq!((registry.active_users(), registry.present_users()), (0, 1));
    assert!(registry.targets(&user).is_none());
    assert!(matches!(registry.settle(&user, Instant::now()), Presence::Lingers(_)));
    assert_eq!(registry.connect(&user, &name(), connection(2)), Duty::None);
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
}

#[test]
fn a_leave_is_told_after_the_linger_and_a_return_after_the_leave() {
    let registry = Registry::new(Duration::from_secs(2));
    let user = UserId::from(42);
    registry.connect(&user, &name(), connection(1));
    while registry.settle(&user, Instant::now()) != Presence::Settled {}
    registry.disconnect(&user, connection(1));
    let later = Instant::now() + Duration::from_secs(3);
    assert_eq!(registry.settle(&user, later), Presence::Left(name()));
    assert_eq!(registry.present_users(), 0);
    assert_eq!(registry.connect(&user, &name(), connection(2)), Duty::None);
    assert_eq!(registry.present_users(), 1);
    assert_eq!(registry.settle(&user, later), Presence::Joined(name()));
}

#[test]
fn what_could_not_be_told_is_told_later() {
    let registry = Registry::new(Duration::ZERO);
    let user = UserId::from(42);
    registry.connect(&user, &name(), connection(1));
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Joined(name()));
    registry.retract(&user);
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Joined(name()));
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
    registry.disconnect(&user, connection(1));
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Left(name()));
    registry.retract(&user);
    assert_eq!(registry.present_users(), 1);
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Left(name()));
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
    assert_eq!(registry.present_users(), 0);
}

#[test]
fn a_user_never_announced_leaves_in_silence() {
    let registry = Registry::new(Duration::from_secs(2));
    let user = UserId::from(42);
    registry.connect(&user, &name(), connection(1));
    registry.disconnect(&user, connection(1));
    assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
    assert_eq!(registry.present_users(), 0);
}

#[derive(Clone, Debug)]
enum Operation {
    Connect(i32),
    Disconnect(usize),
    Settle(i32),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0..4).prop_map(Operation::Connect),
        any::<usize>().prop_map(Operation::Disconnect),
        (0..4).prop_map(Operation::Settle),
    ]
}

proptest! {
    /// A bucket with many users, which a test of the whole map would hardly ever fill.
    #[test]
    fn a_bucket_agrees_with_a_map(changes in prop::collection::vec((0..9_usize, any::<bool>()), 0..60)) {
        let (mut users, mut model) = (Users::default(), HashMap::new());
        for (generation, (number, stays)) in (0..).zip(changes) {
            // Text and numbers, so that both orders are met.
            let user = UserId::parse(&format!("{}{number}", ["", "u"][number % 2])).unwrap();
            if stays {
                users = users.with(&user, Record::new(name(), connection(generation)));
                model.insert(user, connection(generation));
            } else {
                users = users.without(&user);
                model.remove(&user);
            }
            prop_assert_eq!(users.0.len(), model.len());
            for (user, connection) in &model {
                let found = users.get(user).map(|record| record.connections.as_slice());
                prop_assert_eq!(found, Some(&[*connection][..]));
            }
        }
    }

    /// Against a plain map: targets and counts agree after every step, slots are reused under
    /// new generations, and what is told alternates between joined and left.
    #[test]
    fn agrees_with_a_naive_model(operations in prop::collection::vec(operation(), 1..200)) {
        let registry = Registry::new(Duration::ZERO);
        let mut model: HashMap<i32, Vec<ConnectionId>> = HashMap::new();
        let mut told = HashSet::new();
        let mut generation = 0;
        for operation in operations {
            match operation {
                Operation::Connect(user) => {
                    generation += 1;
                    registry.connect(&user.into(), &name(), connection(generation));
                    model.entry(user).or_default().push(connection(generation));
                }
                Operation::Disconnect(index) => {
                    let open = model.iter().flat_map(|(user, all)| all.iter().map(|c| (*user, *c)));
                    let open: Vec<_> = open.collect();
                    if open.is_empty() { continue }
                    let (user, connection) = open[index % open.len()];
                    registry.disconnect(&user.into(), connection);
                    model.entry(user).or_default().retain(|other| *other != connection);
                }
                Operation::Settle(user) => match registry.settle(&user.into(), Instant::now()) {
                    Presence::Joined(_) => prop_assert!(told.insert(user)),
                    Presence::Left(_) => prop_assert!(told.remove(&user)),
                    Presence::Lingers(_) => prop_assert!(false, "there is no linger"),
                    Presence::Settled => {}
                },
            }
            for user in 0..4 {
                let expected = model.get(&user).filter(|all| !all.is_empty());
                let targets = registry.targets(&user.into());
                prop_assert_eq!(targets.as_ref().map(Targets::as_slice), expected.map(|all| &all[..]));
            }
            let active = model.values().filter(|all| !all.is_empty()).count();
            prop_assert_eq!(registry.active_users(), active);
            prop_assert!(registry.present_users() >= active);
        }
    }
}
