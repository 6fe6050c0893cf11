use serde_json::{Value, json};

use crate::client::*;
use crate::support::*;

#[test]
fn history_is_read_in_pages_both_ways() {
    let server = TestServer::with_channels(|_| {});
    let mut client = five_published(&server);
    let epoch = position(&mut client)["epoch"].clone();
    let since = |offset: u64| json!({"offset": offset, "epoch": epoch});
    for (page, expected) in [
        (json!({"limit": 2}), vec![1, 2]),
        (json!({"limit": 2, "since": since(2)}), vec![3, 4]),
        (json!({"limit": 2, "since": since(4)}), vec![5]),
        (json!({"limit": 2, "since": since(5)}), vec![]),
        (json!({"limit": 2, "reverse": true}), vec![5, 4]),
        (json!({"limit": 2, "since": since(4), "reverse": true}), vec![3, 2]),
        (json!({"limit": 2, "since": since(2), "reverse": true}), vec![1]),
        (json!({"limit": 2, "since": since(1), "reverse": true}), vec![]),
        (json!({"limit": -1}), vec![1, 2, 3, 4, 5]),
        (json!({"limit": -1, "reverse": true}), vec![5, 4, 3, 2, 1]),
        // Without an epoch the stream that there is is meant.
        (json!({"limit": 9, "since": {"offset": 3}}), vec![4, 5]),
        (json!({"limit": 0}), vec![]),
        (json!({}), vec![]),
    ] {
        let result = history(&mut client, &page);
        let offsets: Vec<_> = result["publications"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["offset"].clone())
            .collect();
        assert_eq!(offsets, expected, "{page}");
        assert_eq!((&result["offset"], &result["epoch"]), (&json!(5), &epoch), "{page}");
    }
}

#[test]
fn a_page_holds_300_publications_at_most() {
    let server = TestServer::with_channels(|_| {});
    for i in 1..=310 {
        server.publish("news:a", &json!(i));
    }
    let mut client = server.client(1);
    client.subscribe("news:a");
    for limit in [301, -1] {
        let page = history(&mut client, &json!({"limit": limit}));
        let data = data(&page["publications"]);
        assert_eq!((data.len(), &data[299]), (300, &json!(300)));
    }
}

#[test]
fn a_position_in_another_stream_or_ahead_is_error_112() {
    let server = TestServer::with_channels(|_| {});
    let mut client = five_published(&server);
    let epoch = position(&mut client)["epoch"].clone();
    for since in [json!({"offset": 1, "epoch": "another"}), json!({"offset": 6, "epoch": epoch})] {
        let page = json!({"channel": "news:a", "limit": 1, "since": since});
        assert_eq!(client.refusal("history", &page), 112, "{since}");
    }
    server.publish("news:a", &json!(6));
    client.must_hear("news:a", &json!(6));
}

/// A subscriber of a channel whose publications are the numbers from 1 to 5.
fn five_published(server: &TestServer) -> Client {
    for i in 1..=5 {
        server.publish("news:a", &json!(i));
    }
    let mut client = server.client(1);
    client.subscribe("news:a");
    client
}

fn position(client: &mut Client) -> Value {
    history(client, &json!({}))
}

fn history(client: &mut Client, page: &Value) -> Value {
    let mut body = page.clone();
    body["channel"] = json!("news:a");
    client.call("history", &body)
}
