//! What one connect and one chat message cost beside sockets: a token checked, a message in turned
//! into the frame that goes out. `--bench protocol -- --quick` takes seconds.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::auth::{self, Verifier};
use fanfare::config::{Auth, Config, Secret};
use fanfare::protocol::chat::Chat;
use fanfare::protocol::{Protocol, Reaction, Received};
use fanfare::{Identity, UserId, internals};
use jsonwebtoken::{DecodingKey, Validation};

fn token(c: &mut Criterion) {
    let mut config = Config::default();
    config.auth.hmac_secret = Some(Secret::new(*SECRET));
    let verifier = Verifier::new(&config.auth);
    let token = sign(&config.auth);
    let now = SystemTime::now();

    let mut group = c.benchmark_group("token");
    group.bench_function("verify", |b| b.iter(|| verifier.verify(black_box(&token), now)));

    // The baseline: the same check by jsonwebtoken's own decode, which parses both parts twice.
    let (key, validation) = (DecodingKey::from_secret(SECRET), Validation::default());
    group.bench_function("jsonwebtoken_decode", |b| {
        b.iter(|| jsonwebtoken::decode::<serde_json::Value>(black_box(&token), &key, &validation));
    });
    group.finish();
}

#[expect(clippy::expect_used, reason = "the settings are made above")]
fn sign(auth: &Auth) -> String {
    let ada = Identity::new(UserId::from(42)).named("Ada");
    auth::sign(auth, &ada, Duration::from_secs(3600)).expect("the settings hold a secret")
}

fn message(c: &mut Criterion) {
    let mut chat = Chat::new(&Identity::new(UserId::from(42)).named("Ada"));
    let mut group = c.benchmark_group("chat");
    for size in [16, 128, 1 << 10, 16 << 10, 60 << 10] {
        let text = format!(r#"{{"type":"message","body":"{}"}}"#, "x".repeat(size));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("message", size), &text, |b, text| {
            b.iter(|| answer(&mut chat, text));
        });
    }
    // More brackets than the depth limit, so that every byte is followed.
    let broad = format!(r#"{{"type":"message","body":[{}[]]}}"#, "[],".repeat(5 << 10));
    group.throughput(Throughput::Bytes(broad.len() as u64));
    group.bench_function("message_of_brackets", |b| {
        b.iter(|| answer(&mut chat, &broad));
    });
    group.finish();

    c.bench_function("chat/ping", |b| {
        b.iter(|| answer(&mut chat, r#"{"type":"ping"}"#));
    });
}

/// The frame that a message brings about.
fn answer(chat: &mut Chat, text: &str) -> Option<Bytes> {
    match chat.receive(Received::Text(black_box(text))) {
        Reaction::Broadcast(message) | Reaction::Reply(message) => {
            Some(internals::encode(&message))
        }
        _ => None,
    }
}

const SECRET: &[u8; 32] = b"a secret of the bench, 32 bytes.";

criterion_group!(benches, token, message);
criterion_main!(benches);
