//! What the hot path allocates, counted.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests have no public side, and fail by panics"
)]

use allocation_counter::measure;
use fanfare::internals::FanOut;
use fanfare::{Identity, Message, UserId};

#[test]
fn a_delivery_allocates_nothing() {
    for publishes in [1, 32] {
        let (one, many) = (allocations(1, publishes), allocations(1000, publishes));
        assert_eq!(one, many, "{publishes} publishes a turn");
    }
}

#[test]
fn a_message_is_encoded_once_however_often_it_is_published() {
    let mut fan_out = FanOut::new(1, &Identity::new(UserId::from(1)));
    let message = Message::text("hello");
    let mut publish = || {
        let counted = measure(|| assert!(fan_out.publish(&message)));
        fan_out.turn();
        fan_out.drain();
        counted.count_total
    };
    let first = publish();
    let again = publish();
    assert!(again < first, "{first} allocations, then {again}");
    assert_eq!(publish(), again);
}

/// Allocations from publish to outboxes, once everything is as large as it gets.
fn allocations(connections: usize, publishes: usize) -> u64 {
    let mut fan_out = FanOut::new(connections, &Identity::new(UserId::from(1)));
    let message = Message::text("y".repeat(128));
    let mut turn = || {
        let counted = measure(|| {
            for _ in 0..publishes {
                assert!(fan_out.publish(&message));
            }
            assert_eq!(fan_out.turn(), (connections * publishes) as u64);
        });
        fan_out.drain();
        counted.count_total
    };
    turn();
    turn()
}
