//! The commands of the Centrifuge protocol in any frame: reading them never panics, and what is
//! understood is what a general reader of JSON finds in the line. A publish in order is understood,
//! and its data goes out as one line of the same JSON.
//!
//! The first byte says whether the rest is a frame, or a channel, a zero byte, and data to publish.

#![no_main]

use std::collections::BTreeMap;

use fanfare::internals::{Understood, publication_push, understand};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if kind == 0 {
        if let Some((channel, data)) = text.split_once('\0') {
            publish(channel, data);
        }
        return;
    }
    for (line, understood) in understand(text) {
        agree(line, &understood);
    }
});

/// A line against a reading of it that knows nothing of the protocol.
fn agree(line: &str, understood: &Understood) {
    let raw: BTreeMap<String, &RawValue> = serde_json::from_str(line).unwrap();
    let id = raw.get("id").map_or(0, |id| serde_json::from_str(id.get()).unwrap());
    let Understood { method, channel, data, .. } = understood;
    // A message wants no reply, whatever id it has.
    assert_eq!(understood.id, if *method == "send" { 0 } else { id }, "{line}");
    if method.is_empty() {
        return assert_eq!(id, 0, "{line}");
    }
    let body = raw[*method];
    // Fields in a list, in their order, are understood too, as they do no harm.
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(body.get()) else {
        return;
    };
    let text = |raw: &&RawValue| serde_json::from_str(raw.get()).unwrap();
    if !channel.is_empty() {
        assert_eq!(*channel, fields.get("channel").map_or_else(String::new, text), "{line}");
    }
    if let Some(data) = data {
        assert_eq!(data, fields["data"].get(), "{line}");
    }
}

fn publish(channel: &str, data: &str) {
    let Ok(raw) = serde_json::from_str::<&RawValue>(data) else { return };
    let name = json!(channel);
    let one_line: String = raw.get().split(['\n', '\r']).collect();
    let command = format!(r#"{{"id":7,"publish":{{"channel":{name},"data":{one_line}}}}}"#);
    let Some((_, understood)) = understand(&command).next() else {
        assert!(depth(&command) > 64, "{command}");
        return;
    };
    assert_eq!((understood.id, understood.method), (7, "publish"));
    // JSON's null is an absent value.
    let expected = (one_line != "null").then_some(one_line);
    assert_eq!((understood.channel.as_str(), &understood.data), (channel, &expected));
    let push = publication_push(channel, data);
    assert!(!push.contains(['\n', '\r']), "{push}");
    #[derive(Deserialize)]
    struct Out<'a> {
        #[serde(borrow)]
        push: Push<'a>,
    }
    #[derive(Deserialize)]
    struct Push<'a> {
        channel: String,
        #[serde(borrow, rename = "pub")]
        publication: BTreeMap<String, &'a RawValue>,
    }
    let Out { push } = serde_json::from_str(&push).unwrap();
    assert_eq!(push.channel, channel);
    let number = |text: &str| serde_json::from_str::<Value>(text).ok();
    assert_eq!(number(push.publication["data"].get()), number(data));
}

/// Brackets that are open at once, at most; in strings they count too, so it is never too few.
fn depth(text: &str) -> usize {
    text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count()
}
