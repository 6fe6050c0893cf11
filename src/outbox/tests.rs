//! What waits, how it is cut, and that nothing is written twice or in part.

use proptest::prelude::*;

use super::*;

const UNBOUNDED: usize = usize::MAX;

fn budget() -> Rc<Budget> {
    Rc::default()
}

fn burst(frames: &[&str], at: Millis, budget: &Rc<Budget>) -> Rc<Burst> {
    let mut ends = Vec::new();
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(frame.as_bytes());
        ends.push(bytes.len() as u32);
    }
    Burst::joined(bytes, ends, at, budget)
}

fn lone(frame: &str, budget: &Rc<Budget>) -> Rc<Burst> {
    Burst::lone(Bytes::copy_from_slice(frame.as_bytes()), 1, budget)
}

fn push(outbox: &mut Outbox, burst: &Rc<Burst>) -> Push {
    outbox.push(burst, 0, burst.len(), UNBOUNDED)
}

/// Writes everything, at most `step` bytes a time.
fn drain(outbox: &mut Outbox, step: usize) -> String {
    let mut written = Vec::new();
    while !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); 3];
        let count = outbox.slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        let taken = bytes.len().min(step);
        written.extend_from_slice(&bytes[..taken]);
        outbox.advance(taken);
    }
    assert_eq!(outbox.held(), 0);
    String::from_utf8(written).unwrap()
}

#[test]
fn a_full_outbox_refuses_and_an_empty_one_never_does() {
    let budget = budget();
    let mut outbox = Outbox::default();
    let burst = lone("0123456789", &budget);
    assert_eq!(outbox.push(&burst, 0, 10, 5), Push::Queued);
    assert_eq!(outbox.push(&burst, 0, 10, 2 * (10 + 64) - 1), Push::Full);
    assert_eq!(outbox.push(&burst, 0, 10, 2 * (10 + 64)), Push::Queued);
    assert_eq!(outbox.held(), 148);
}

#[test]
fn control_frames_pass_waiting_bursts_but_not_each_other() {
    let budget = budget();
    let mut outbox = Outbox::default();
    push(&mut outbox, &burst(&["abc", "def"], 1, &budget));
    outbox.push_control(&lone("1", &budget));
    outbox.push_control(&lone("2", &budget));
    assert_eq!(drain(&mut outbox, 1), "12abcdef");
}

#[test]
fn a_control_frame_cuts_a_burst_at_the_next_frame_end() {
    let budget = budget();
    for (written, expected) in
        [(0, "!abcdefghi"), (1, "bc!defghi"), (3, "!defghi"), (4, "ef!ghi"), (8, "i!")]
    {
        let mut outbox = Outbox::default();
        push(&mut outbox, &burst(&["abc", "def", "ghi"], 1, &budget));
        outbox.advance(written);
        outbox.push_control(&lone("!", &budget));
        assert_eq!(drain(&mut outbox, 2), expected);
    }
}

#[test]
fn control_frames_are_bounded_and_the_latest_is_among_them() {
    let budget = budget();
    let mut outbox = Outbox::default();
    for _ in 0..CONTROL_MAX {
        outbox.push_control(&lone("!", &budget));
    }
    outbox.push_control(&lone("?", &budget));
    outbox.push_control(&lone("…", &budget));
    assert_eq!(drain(&mut outbox, 7), "!".repeat(CONTROL_MAX - 1) + "…");
}

#[test]
fn eviction_finishes_the_frame_in_flight_and_drops_the_rest() {
    let budget = budget();
    for (written, expected, frames_dropped) in
        [(0, "CLOSE", 4), (1, "bcCLOSE", 3), (3, "CLOSE", 3), (4, "efCLOSE", 2)]
    {
        let mut outbox = Outbox::default();
        push(&mut outbox, &burst(&["abc", "def"], 1, &budget));
        push(&mut outbox, &burst(&["ghi", "jkl"], 2, &budget));
        outbox.advance(written);
        assert_eq!(outbox.close(&lone("CLOSE", &budget), true), frames_dropped);
        assert_eq!(push(&mut outbox, &lone("late", &budget)), Push::Closing);
        assert!(budget.used() <= 2 + 5 + 2 * ENTRY_BYTES);
        assert_eq!(drain(&mut outbox, 2), expected);
    }
    assert_eq!(budget.used(), 0);
}

fn push_begun(outbox: &mut Outbox, begin: &'static str, rest: &str, budget: &Rc<Budget>) {
    let begin = Burst::begin(begin.into(), 1, budget);
    assert_eq!(outbox.push_begun(&begin, &lone(rest, budget), UNBOUNDED), Push::Queued);
}

#[test]
fn a_frame_in_two_parts_is_written_whole_or_not_at_all() {
    let budget = budget();
    for (written, evicted, controlled) in [
        (0, "CLOSE", "!abcdefghijkl"),
        (1, "bcdefCLOSE", "bcdef!ghijkl"),
        (3, "defCLOSE", "def!ghijkl"),
        (4, "efCLOSE", "ef!ghijkl"),
        (6, "CLOSE", "!ghijkl"),
    ] {
        let begun = || {
            let mut outbox = Outbox::default();
            push_begun(&mut outbox, "abc", "def", &budget);
            push_begun(&mut outbox, "ghi", "jkl", &budget);
            outbox.advance(written);
            outbox
        };
        let mut outbox = begun();
        let dropped = if written == 0 { 2 } else { 1 };
        assert_eq!(outbox.close(&lone("CLOSE", &budget), true), dropped);
        assert_eq!(drain(&mut outbox, 2), evicted);
        let mut outbox = begun();
        outbox.push_control(&lone("!", &budget));
        assert_eq!(drain(&mut outbox, 2), controlled);
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_frame_in_two_parts_is_refused_whole() {
    let budget = budget();
    let mut outbox = Outbox::default();
    let (begin, rest) = (Burst::begin("abc".into(), 1, &budget), lone("def", &budget));
    assert_eq!(outbox.push_begun(&begin, &rest, 5), Push::Queued);
    assert_eq!(outbox.push_begun(&begin, &rest, 2 * (6 + 2 * ENTRY_BYTES) - 1), Push::Full);
    assert_eq!(drain(&mut outbox, 9), "abcdef");
    outbox.close(&lone("CLOSE", &budget), false);
    assert_eq!(outbox.push_begun(&begin, &rest, 5), Push::Closing);
}

#[test]
fn an_orderly_close_comes_after_what_waits() {
    let budget = budget();
    let mut outbox = Outbox::default();
    push(&mut outbox, &lone("abc", &budget));
    outbox.advance(1);
    assert_eq!(outbox.close(&lone("CLOSE", &budget), false), 0);
    assert_eq!(drain(&mut outbox, 3), "bcCLOSE");
}

#[test]
fn age_is_that_of_the_oldest_bytes_wherever_they_wait() {
    let budget = budget();
    let mut outbox = Outbox::default();
    assert_eq!(outbox.oldest(), None);
    push(&mut outbox, &burst(&["abc"], 5, &budget));
    outbox.push_control(&Burst::lone("!".into(), 9, &budget));
    assert_eq!(outbox.oldest(), Some(5));
    outbox.advance(1);
    assert_eq!(outbox.oldest(), Some(5));
}

#[test]
fn a_ping_is_reported_once_the_kernel_has_all_of_it() {
    let budget = budget();
    let mut outbox = Outbox::default();
    outbox.push_control(&Burst::ping("ping".into(), 1, &budget));
    assert!(!outbox.advance(3));
    assert!(outbox.advance(1));
    push(&mut outbox, &lone("abc", &budget));
    assert!(!outbox.advance(3));
}

#[test]
fn the_writer_is_woken_only_when_it_sleeps_on_an_empty_outbox() {
    let budget = budget();
    let (waker, wakes) = counting_waker();
    let mut context = Context::from_waker(&waker);
    let mut outbox = Outbox::default();
    assert!(outbox.poll_filled(&mut context).is_pending());
    push(&mut outbox, &lone("a", &budget));
    push(&mut outbox, &lone("b", &budget));
    assert_eq!(wakes.count(), 1);
    assert!(outbox.poll_filled(&mut context).is_ready());
    push(&mut outbox, &lone("c", &budget));
    assert_eq!(wakes.count(), 1);
    outbox.close(&lone("CLOSE", &budget), true);
    assert_eq!(wakes.count(), 2);
}

#[test]
fn an_empty_outbox_keeps_little_memory() {
    let budget = budget();
    let mut outbox = Outbox::default();
    for _ in 0..100 {
        push(&mut outbox, &lone("a", &budget));
    }
    outbox.advance(100);
    assert_eq!(outbox.pieces.capacity(), 0);
}

struct Wakes(std::sync::atomic::AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn counting_waker() -> (Waker, std::sync::Arc<Wakes>) {
    let wakes = std::sync::Arc::new(Wakes(std::sync::atomic::AtomicUsize::new(0)));
    (Waker::from(wakes.clone()), wakes)
}

#[derive(Clone, Debug)]
enum Operation {
    Push(Vec<u8>),
    Control,
    Write(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        prop::collection::vec(1u8..6, 1..5).prop_map(Operation::Push),
        Just(Operation::Control),
        (0usize..12).prop_map(Operation::Write),
    ]
}

proptest! {
    /// Against a naive model, a list of whole frames: control frames go in at the first frame
    /// end behind earlier control frames, and the bytes that come out are those of the list.
    #[test]
    fn agrees_with_a_naive_model(operations in prop::collection::vec(operation(), 1..100)) {
        let budget = budget();
        let mut outbox = Outbox::default();
        let mut model: Vec<(bool, Vec<u8>)> = Vec::new();
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        let mut in_flight = 0;
        let mut label = 0u8;
        for operation in operations {
            match operation {
                Operation::Push(lengths) => {
                    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                    for length in lengths {
                        label = label.wrapping_add(1);
                        model.push((false, vec![label; length.into()]));
                        bytes.extend(vec![label; length.into()]);
                        ends.push(bytes.len() as u32);
                    }
                    push(&mut outbox, &Burst::joined(bytes, ends, 1, &budget));
                }
                Operation::Control => {
                    label = label.wrapping_add(1);
                    outbox.push_control(&Burst::lone(vec![label; 3].into(), 1, &budget));
                    let after_flight = usize::from(in_flight > 0);
                    let controls = model[after_flight.min(model.len())..].iter();
                    let mut index = after_flight + controls.take_while(|frame| frame.0).count();
                    if index == CONTROL_MAX {
                        index -= 1;
                        model.remove(index);
                    }
                    model.insert(index, (true, vec![label; 3]));
                }
                Operation::Write(bytes) => {
                    let mut slices = [IoSlice::new(&[]); 4];
                    let count = outbox.slices(&mut slices);
                    let ready: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                    let taken = bytes.min(ready.len());
                    sent.extend_from_slice(&ready[..taken]);
                    outbox.advance(taken);
                    in_flight += taken;
                    while model.first().is_some_and(|frame| frame.1.len() <= in_flight) {
                        let frame = model.remove(0).1;
                        in_flight -= frame.len();
                        expected.extend(frame);
                    }
                }
            }
        }
        while !outbox.is_empty() {
            let front = outbox.front().to_vec();
            outbox.advance(front.len());
            sent.extend(front);
        }
        expected.extend(model.into_iter().flat_map(|frame| frame.1));
        prop_assert_eq!(sent, expected);
        prop_assert_eq!((outbox.held(), budget.used()), (0, 0));
    }
}
