//! The token check on any text, and on any header and claims under a signature in order: it never
//! panics, and whom it lets in keeps every bound.
//!
//! A line break ends the header and begins the claims; without one the input is the token.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fanfare::auth::{NAME_MAX, Verifier};
use fanfare::config::{Config, Secret};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => check(&sign(&data[..end], &data[end + 1..]), now),
        None => {
            let token = String::from_utf8_lossy(data);
            assert!(VERIFIER.verify(&token, now).is_err(), "a signature was guessed");
        }
    }
});

fn check(token: &str, now: SystemTime) {
    let Ok(identity) = VERIFIER.verify(token, now) else { return };
    assert!(identity.expires.is_some_and(|expires| expires > now));
    assert!((1..=128).contains(&identity.user.to_string().len()));
    assert!(identity.name.len() <= NAME_MAX);
}

fn sign(header: &[u8], claims: &[u8]) -> String {
    let encode = |part| BASE64_URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let mut config = Config::default();
    config.auth.hmac_secret = Some(Secret::new(*SECRET));
    Verifier::new(&config.auth)
});

const SECRET: &[u8; 32] = b"a secret of fuzzing, 32 bytes...";
