use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use fanfare::{CloseReason, Config, Hub, Message, PublishError, UserId};

use crate::support::*;

#[test]
fn publishing_needs_no_runtime_and_may_come_from_any_thread() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let mut peers: Vec<_> = (0..4).map(|user| server.connect(user)).collect();
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let hub = server.hub.clone();
            std::thread::spawn(move || {
                for i in 0..50 {
                    assert_eq!(hub.broadcast(format!("{publisher} {i}")).wait(), Ok(4));
                }
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    let mut first = Vec::new();
    for peer in &mut peers {
        let seen: Vec<_> = (0..200).map(|_| peer.read_text()).collect();
        for publisher in 0..4 {
            let own = seen.iter().filter(|text| text.starts_with(&format!("{publisher} ")));
            let expected = (0..50).map(|i| format!("{publisher} {i}"));
            assert!(own.eq(expected.collect::<Vec<_>>().iter()), "{seen:?}");
        }
        // Broadcasts have one order, whoever publishes.
        first = if first.is_empty() { seen.clone() } else { first };
        assert_eq!(seen, first);
    }
}

#[test]
fn publishing_works_inside_a_runtime_of_another_kind() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let hub = server.hub.clone();
    let task = runtime.spawn(async move { hub.send_to_user(&UserId::from(1), "hi").await });
    assert_eq!(runtime.block_on(task).unwrap(), Ok(1));
    assert_eq!(peer.read_text(), "hi");
}

#[test]
fn a_publish_says_for_how_many_connections_it_was_admitted() {
    let server = TestServer::start();
    let _peers = [server.connect(1), server.connect(1), server.connect(2)];
    assert_eq!(server.hub.broadcast("x").wait(), Ok(3));
    assert_eq!(server.hub.send_to_user(&UserId::from(1), "x").wait(), Ok(2));
    assert_eq!(server.hub.send_to_user(&UserId::from(3), "x").wait(), Ok(0));
    assert_eq!(server.hub.disconnect_user(&UserId::from(3), CloseReason::NORMAL).wait(), Ok(0));
    assert_eq!(server.hub.disconnect_user(&UserId::from(1), CloseReason::NORMAL).wait(), Ok(2));
}

#[test]
fn counts_are_of_users_and_of_connections() {
    let server = TestServer::with(|config| config.server.shards = 2);
    assert_eq!((server.hub.active_users(), server.hub.connections()), (0, 0));
    let mut peers = vec![server.connect(1), server.connect(1), server.connect(2)];
    assert_eq!((server.hub.active_users(), server.hub.connections()), (2, 3));
    assert_eq!(server.hub.user_connections(&UserId::from(1)), 2);
    peers.remove(0);
    wait_until("a tab is gone", || server.hub.connections() == 2);
    assert_eq!(server.hub.active_users(), 2);
    peers.clear();
    wait_until("all are gone", || server.hub.connections() == 0);
    assert_eq!(server.hub.active_users(), 0);
    assert_eq!(server.hub.user_connections(&UserId::from(1)), 0);
}

#[test]
fn a_disconnected_user_is_told_why_after_what_was_sent_before() {
    let server = TestServer::with(|config| config.server.shards = 2);
    let mut tabs = [server.connect(1), server.connect(1)];
    let mut other = server.connect(2);
    let user = UserId::from(1);
    server.hub.broadcast("all").wait().unwrap();
    server.hub.send_to_user(&user, "user").wait().unwrap();
    let reason = CloseReason::new(4242, "enough").unwrap();
    assert_eq!(server.hub.disconnect_user(&user, reason).wait(), Ok(2));
    server.hub.broadcast("later").wait().unwrap();
    for tab in &mut tabs {
        assert_eq!([tab.read_text(), tab.read_text()], ["all", "user"]);
        assert_eq!(tab.read_close(), (4242, "enough".into()));
    }
    assert_eq!([other.read_text(), other.read_text()], ["all", "later"]);
}

/// Only the server's own 3008 is an eviction, which drops what waits.
#[test]
fn a_backends_own_3008_comes_after_what_was_sent_before() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    for _ in 0..50 {
        server.hub.broadcast("x".repeat(10_000)).wait().unwrap();
    }
    let reason = CloseReason::new(3008, "no hurry").unwrap();
    server.hub.disconnect_user(&UserId::from(1), reason).wait().unwrap();
    for _ in 0..50 {
        assert_eq!(peer.read_text().len(), 10_000);
    }
    assert_eq!(peer.read_close(), (3008, "no hurry".into()));
}

#[test]
fn a_peer_does_not_choose_what_its_close_counts_as() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    peer.send(&frame(FIN | CLOSE, &3008_u16.to_be_bytes()));
    assert_eq!(peer.read_close().0, 3008);
    assert_eq!(server.metric(r#"fanfare_closes_total{code="3008"}"#), 0.0);
    assert_eq!(server.metric(r#"fanfare_closes_total{code="1000"}"#), 1.0);
}

#[test]
fn however_a_connection_ends_nothing_of_it_stays() {
    let server = TestServer::start();
    let ends: [fn(&TestServer, &mut Peer); 6] = [
        |_, peer| peer.send(&frame(FIN | CLOSE, b"\x03\xe8")),
        |_, peer| peer.shut_down_writing(),
        |_, peer| {
            // A reset: closed with the linger of 0 that discards.
            socket2::SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
            let unused = idle_stream();
            drop(std::mem::replace(&mut peer.stream, unused));
        },
        |_, peer| peer.send(b"\xff\xff"),
        |_, peer| peer.send(&header(FIN | TEXT, 1 << 30)),
        |server, _| {
            server.hub.disconnect_user(&UserId::from(1), CloseReason::NORMAL).wait().unwrap();
        },
    ];
    for (i, end) in ends.iter().enumerate() {
        let mut peer = server.connect(1);
        assert_eq!(server.hub.connections(), 1);
        end(&server, &mut peer);
        wait_until(&format!("end {i}"), || server.hub.connections() == 0);
        assert_eq!(server.hub.active_users(), 0);
        assert_eq!(server.hub.user_connections(&UserId::from(1)), 0);
        assert_eq!(server.hub.send_to_user(&UserId::from(1), "x").wait(), Ok(0));
        drop(peer);
    }
    // The socket that asks is the one that is left.
    wait_until("sockets are gone", || server.metric("fanfare_sockets") == 1.0);
    let closes: f64 = ["1000", "1002", "1006", "1009"]
        .map(|code| server.metric(&format!(r#"fanfare_closes_total{{code="{code}"}}"#)))
        .iter()
        .sum();
    assert_eq!(closes, ends.len() as f64);
}

#[test]
fn a_message_over_the_limit_is_too_large() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let limit = Config::default().limits.message_bytes;
    let whole = Message::text("x".repeat(limit));
    let over = Message::text("x".repeat(limit + 1));
    let too_large = Err(PublishError::TooLarge { size: limit + 1, max: limit });
    assert_eq!(server.hub.broadcast(over.clone()).wait(), too_large);
    assert_eq!(server.hub.send_to_user(&UserId::from(1), over).wait(), too_large);
    assert_eq!(server.hub.broadcast(whole).wait(), Ok(1));
    assert_eq!(peer.read_text().len(), limit);
}

#[test]
fn a_closed_hub_refuses() {
    let hub = Hub::start(Config::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(hub.drain()), 0);
    let user = UserId::from(1);
    assert_eq!(hub.broadcast("x").wait(), Err(PublishError::Closed));
    assert_eq!(hub.send_to_user(&user, "x").wait(), Err(PublishError::Closed));
    assert_eq!(hub.disconnect_user(&user, CloseReason::NORMAL).wait(), Err(PublishError::Closed));
}

#[test]
fn a_setting_out_of_bounds_starts_no_hub() {
    let mut config = Config::default();
    config.limits.ring_messages = 3;
    let error = Hub::start(config).unwrap_err();
    assert!(error.to_string().contains("limits.ring_messages"), "{error}");
}

/// A stream to nowhere, to stand where another is taken out.
fn idle_stream() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

#[test]
fn a_publish_is_remembered_and_says_where() {
    let server = TestServer::with(|config| config.channel.history_size = 2);
    let first = server.hub.publish("news", "1").wait().unwrap();
    let second = server.hub.publish("news", " [2]").wait().unwrap();
    assert_eq!((first.connections, first.offset, second.offset), (0, 1, 2));
    assert!(!first.epoch.is_empty());
    assert_eq!(first.epoch, second.epoch);
}

#[test]
fn a_publish_to_the_chats_channel_reaches_those_who_chat() {
    let server = TestServer::start();
    let mut peer = server.connect(1);
    let published = server.hub.publish("chat", r#"{"type":"notification"}"#).wait().unwrap();
    assert_eq!((published.connections, published.offset), (1, 0));
    assert_eq!(peer.read_text(), r#"{"type":"notification"}"#);
}

#[test]
fn a_publish_that_cannot_be_is_refused_and_counted() {
    let server = TestServer::with(|config| {
        config.channel.max_bytes = 16;
        config.channel.history_size = 1;
        config.limits.channels = 1;
    });
    let publish = |channel: &str, data: &str| server.hub.publish(channel, data).wait().map(|_| ());
    assert_eq!(publish("news", r#""123456789 1234""#), Ok(()));
    let too_large = PublishError::TooLarge { size: 17, max: 16 };
    for (channel, data, error, reason) in [
        ("news", r#""123456789 12345""#, too_large, "too_large"),
        ("news", "{", PublishError::NotJson, "not_json"),
        ("other", "1", PublishError::TooManyChannels, "too_many_channels"),
        ("", "1", PublishError::UnknownChannel, "unknown_channel"),
        ("nowhere:news", "1", PublishError::UnknownChannel, "unknown_channel"),
    ] {
        assert_eq!(publish(channel, data), Err(error), "{channel}");
        assert!(server.metric(&format!("fanfare_refusals_total{{reason=\"{reason}\"}}")) > 0.0);
    }
}
