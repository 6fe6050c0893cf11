//! What is admitted, and until when.

use super::*;

fn broadcast(ring: &Ring) -> bool {
    let Some(reservation) = ring.reserve(36, None) else { return false };
    ring.send(reservation, Load::Broadcast(Message::text("frame"), Audience::Everyone, None));
    true
}

#[test]
fn entries_are_bounded_until_the_slowest_shard_lets_go() {
    let ring = Ring::new(4, 1 << 20);
    let (mut quick, mut slow) = (ring.subscribe(), ring.subscribe());
    assert!((0..4).all(|_| broadcast(&ring)));
    assert!(!broadcast(&ring));
    while quick.try_recv().is_some() {}
    assert!(!broadcast(&ring));
    drop(slow.try_recv());
    assert!(broadcast(&ring));
    assert!(!broadcast(&ring));
}

#[test]
fn what_is_reserved_together_has_room_for_all_or_none() {
    let room = Room::new(4, 1 << 10);
    let three = room.reserve_together([1, 2, 3].into_iter());
    assert_eq!(room.taken(), (3, 6 + 3 * ENTRY_BYTES as u64));
    assert!(room.reserve_together([1, 2].into_iter()).is_none());
    drop(three);
    assert_eq!(room.taken(), (0, 0));
}

#[tokio::test]
async fn what_goes_together_fills_a_quarter_at_most() {
    let room = Room::new(16, 1 << 10);
    let (count, _some) = room.wait_together([0; 9].into_iter()).await;
    assert_eq!((count, room.taken()), (4, (4, 4 * ENTRY_BYTES as u64)));
    for (payloads, expected) in [([90, 30, 1], 2), ([500, 1, 1], 1)] {
        assert_eq!(room.wait_together(payloads.into_iter()).await.0, expected);
    }
}

#[test]
fn bytes_are_bounded_and_count_the_entry() {
    let ring = Ring::new(100, 250);
    let _shard = ring.subscribe();
    assert!(broadcast(&ring) && broadcast(&ring));
    assert!(!broadcast(&ring));
    assert_eq!(ring.taken(), (2, 200));
}

#[test]
fn a_refusal_leaves_no_trace() {
    let ring = Ring::new(1, 1 << 20);
    let share = Arc::new(Share::default());
    let held = ring.reserve(0, None);
    assert!(ring.reserve(0, Some(&share)).is_none());
    drop(held);
    assert_eq!((ring.taken(), share.0.load(Ordering::Relaxed)), ((0, 0), 0));
    assert_eq!(ring.position(), 0);
}

#[test]
fn one_connection_holds_at_most_a_quarter() {
    let ring = Ring::new(8, 1 << 20);
    let share = Arc::new(Share::default());
    let held: Vec<_> = std::iter::from_fn(|| ring.reserve(0, Some(&share))).collect();
    assert_eq!(held.len(), 2);
    assert!(ring.reserve(0, None).is_some());
    drop(held);
    assert!(ring.reserve(0, Some(&share)).is_some());
}

#[test]
fn connections_together_leave_a_quarter_to_all_else() {
    let ring = Ring::new(8, 1 << 20);
    let shares: [_; 4] = std::array::from_fn(|_| Arc::new(Share::default()));
    let ring = &ring;
    let of_share = |share| std::iter::from_fn(move || ring.reserve(0, Some(share)));
    let held: Vec<_> = shares.iter().flat_map(of_share).collect();
    assert_eq!(held.len(), 6);
    let others: Vec<_> = std::iter::from_fn(|| ring.reserve(0, None)).collect();
    assert_eq!(others.len(), 2);
}

#[tokio::test]
async fn a_waiter_learns_of_freed_room() {
    let ring = Ring::new(1, 1 << 20);
    let held = ring.reserve(0, None);
    let mut freed = ring.room().freed();
    assert!(ring.reserve(0, None).is_none());
    drop(held);
    freed.wait().await;
    assert!(ring.reserve(0, None).is_some());
}

#[test]
fn racing_publishers_never_exceed_the_bound() {
    let ring = Ring::new(64, 64 * 100);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let held = ring.reserve(36, None);
                    let (entries, bytes) = ring.taken();
                    assert!(entries <= 64 && bytes <= 6400, "{entries} {bytes}");
                    drop(held);
                }
            });
        }
    });
    assert_eq!(ring.taken(), (0, 0));
}

#[tokio::test]
async fn a_probe_completes_with_the_last_shard() {
    let probe = Probe::new(2);
    probe.arrive();
    assert_eq!(probe.missing.load(Ordering::Relaxed), 1);
    probe.arrive();
    probe.complete().await;
}
