use std::time::{Duration, Instant};

use fanfare::config::Announce;
use fanfare::{Config, UserId};

use crate::support::*;

#[test]
fn users_joining_are_told_to_all_with_their_count() {
    let server = announcing(|_| {});
    let mut ada = server.open(1);
    assert_eq!(ada.read_text(), joined(1, 1));
    let mut grace = server.open(2);
    assert_eq!(grace.read_text(), joined(2, 2));
    assert_eq!(ada.read_text(), joined(2, 2));
}

#[test]
fn users_leaving_are_told_after_their_linger() {
    let server = announcing(|_| {});
    let mut ada = server.open(1);
    let mut grace = server.open(2);
    assert_eq!(grace.read_text(), joined(2, 2));
    let gone = Instant::now();
    drop(grace);
    wait_until("it counts no more", || server.hub.active_users() == 1);
    assert_eq!([ada.read_text(), ada.read_text()], [joined(1, 1), joined(2, 2)]);
    assert_eq!(ada.read_text(), left(2, 1));
    assert!(gone.elapsed() >= LINGER, "left after {:?}", gone.elapsed());
}

#[test]
fn a_further_tab_is_told_to_itself_alone() {
    let server = announcing(|_| {});
    let mut ada = server.open(1);
    assert_eq!(ada.read_text(), joined(1, 1));
    let mut tab = server.open(1);
    assert_eq!(tab.read_text(), joined(1, 1));
    assert_eq!(server.hub.user_connections(&UserId::from(1)), 2);
    drop(tab);
    wait_until("the tab is gone", || server.hub.connections() == 1);
    let _grace = server.open(2);
    assert_eq!(ada.read_text(), joined(2, 2));
}

#[test]
fn a_return_within_the_linger_tells_no_one() {
    let server = announcing(|config| config.chat.linger = Duration::from_secs(60));
    let mut ada = server.open(1);
    assert_eq!(ada.read_text(), joined(1, 1));
    let mut grace = server.open(2);
    assert_eq!(grace.read_text(), joined(2, 2));
    assert_eq!(ada.read_text(), joined(2, 2));
    drop(grace);
    wait_until("it counts no more", || server.hub.active_users() == 1);
    // Lingering, the user still counts on the wire.
    assert_eq!(server.open(2).read_text(), joined(2, 2));
    assert_eq!(server.open(3).read_text(), joined(3, 3));
    assert_eq!(ada.read_text(), joined(3, 3));
}

#[test]
fn a_crowd_is_counted_at_most_once_a_second() {
    let server = announcing(|config| config.chat.announce_users = 10);
    let mut ada = server.open(1);
    assert_eq!(ada.read_text(), joined(1, 1));
    let mut crowd: Vec<_> = (2..=10).map(|user| server.connect(user)).collect();
    for user in 2..=10 {
        assert_eq!(ada.read_text(), joined(user, user as usize));
    }
    // One more than is announced: its count comes at once, those of the others together.
    crowd.push(server.connect(11));
    assert_eq!(ada.read_text(), r#"{"type":"count","count":11}"#);
    let first = Instant::now();
    crowd.extend((12..=20).map(|user| server.connect(user)));
    assert_eq!(ada.read_text(), r#"{"type":"count","count":20}"#);
    assert!(first.elapsed() > Duration::from_millis(900), "{:?}", first.elapsed());
    // A tab of the crowd still learns the count.
    let mut tab = server.open(20);
    assert_eq!(tab.read_text(), joined(20, 20));
}

#[test]
fn announcing_may_be_off() {
    let server = announcing(|config| config.chat.announce = Announce::Off);
    let mut ada = server.open(1);
    let grace = server.connect(2);
    drop(grace);
    wait_until("it is gone", || server.hub.connections() == 1);
    server.hub.broadcast("next").wait().unwrap();
    assert_eq!(ada.read_text(), "next");
}

#[test]
fn a_name_is_told_as_its_token_says() {
    let server = announcing(|_| {});
    let identity = fanfare::Identity::new(UserId::parse("ada").unwrap()).named("Ada \"L\"");
    let token = server.token_for(&identity, Duration::from_secs(60));
    let mut ada = server.open_at(&format!("/ws/chat?token={token}"), "");
    let expected = r#"{"type":"user_joined","user_id":"ada","name":"Ada \"L\"","count":1}"#;
    assert_eq!(ada.read_text(), expected);
}

fn announcing(set: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        config.chat.announce = Announce::User;
        config.chat.linger = LINGER;
        // Sweeps look more often for the shortest deadline's sake.
        config.limits.close_timeout = Duration::from_millis(400);
        set(config);
    })
}

fn joined(user: i32, count: usize) -> String {
    format!(r#"{{"type":"user_joined","user_id":{user},"name":"User {user}","count":{count}}}"#)
}

fn left(user: i32, count: usize) -> String {
    format!(r#"{{"type":"user_left","user_id":{user},"name":"User {user}","count":{count}}}"#)
}

const LINGER: Duration = Duration::from_millis(300);
