use std::net::TcpStream;
use std::time::Duration;

use fanfare::Config;
use fanfare::config::Recovery;

use super::event_source::*;
use super::{open_to_all, publish};
use crate::support::*;

#[test]
fn a_slow_stream_of_one_channel_finds_out_and_comes_back_for_the_rest() {
    evicted_and_recovered(&["a"]);
}

#[test]
fn a_slow_stream_of_several_channels_finds_out_and_comes_back_for_the_rest() {
    evicted_and_recovered(&["a", "b"]);
}

/// A peer that does not read is closed, beside one that does; what it finds is whole, and what it comes
/// back for is the rest.
fn evicted_and_recovered(channels: &[&str]) {
    let server = TestServer::with(remembering);
    let query = format!("?channels={}", channels.join(","));
    let mut slow = stalled(&server, &query);
    let mut fast = EventSource::open(&server, &query, "");
    let long = "x".repeat(8 << 10);
    let data = |number: usize| format!(r#"[{number},"{long}"]"#);
    let mut published = 0;
    while server.hub.connections() == 2 {
        let channel = channels[published % channels.len()];
        publish(&server, channel, &data(published));
        fast.expect(channel, &data(published));
        published += 1;
        assert!(published < 1000, "8 MiB wait for a peer that may be 160 KiB behind");
    }
    assert_eq!(server.metric(r#"fanfare_closes_total{code="3008"}"#), 1.0);
    let mut read = 0;
    let last = loop {
        let event = slow.next().unwrap();
        if event.name == "disconnect" {
            break event.data;
        }
        assert_eq!((&*event.name, event.data), (channels[read % channels.len()], data(read)));
        read += 1;
    };
    assert_eq!(last, r#"{"code":3008,"reason":"slow"}"#);
    assert_eq!(slow.next(), None);
    assert!((1..published).contains(&read), "{read} of {published}");
    let mut again = slow.reopen(&server, &query);
    // Between channels no order is promised.
    let mut missed: Vec<_> = (read..published).map(|_| again.next().unwrap()).collect();
    missed
        .sort_by_key(|event| event.data[1..].split(',').next().unwrap().parse::<usize>().unwrap());
    for (number, event) in (read..).zip(missed) {
        assert_eq!((&*event.name, event.data), (channels[number % channels.len()], data(number)));
    }
}

#[test]
fn a_stream_that_is_never_read_again_is_cut_and_holds_nothing() {
    let server = TestServer::with(|config| {
        remembering(config);
        config.limits.outbox_age = Duration::from_millis(200);
        config.limits.close_timeout = Duration::from_millis(200);
    });
    let mut stalled = stalled(&server, "?channels=a,b");
    let long = format!("\"{}\"", "x".repeat(8 << 10));
    for _ in 0..40 {
        publish(&server, "a", &long);
    }
    // The socket that asks is the one that is left.
    wait_until("its socket is gone", || server.metric("fanfare_sockets") == 1.0);
    wait_until("nothing is held for it", || server.metric("fanfare_outbox_bytes") == 0.0);
    assert!(stalled.peer.is_cut());
}

/// A stream whose peer takes little and has read its head alone.
fn stalled(server: &TestServer, query: &str) -> EventSource {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut peer = Peer::new(TcpStream::from(socket));
    peer.send(get(query, "").as_bytes());
    EventSource::on(peer)
}

fn remembering(config: &mut Config) {
    open_to_all(config);
    config.channel.history_size = 1000;
    config.channel.recovery = Recovery::Stream;
    config.limits.outbox_bytes = 160 << 10;
    // What they hold is the limit, however long that takes.
    config.limits.outbox_age = Duration::from_secs(60 * 60);
}
