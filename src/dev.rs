//! `fanfare dev`: what a first try needs, made for this run alone.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fanfare::config::{Config, Secret};
use fanfare::{Identity, UserId, auth};

/// Turns the page on, and makes the secrets that are not given.
pub(crate) fn complete(config: &mut Config) -> Result<(), Box<dyn Error>> {
    config.server.dev = true;
    if config.auth.hmac_secret.is_none() {
        config.auth.hmac_secret = Some(random_secret()?);
    }
    if config.api.key.is_none() {
        config.api.key = Some(random_secret()?);
    }
    Ok(())
}

/// Prints where everything is, and lines to paste.
pub(crate) fn greet(config: &Config, address: SocketAddr) {
    let identity = Identity::new(UserId::from(42)).named("Ada");
    let token = auth::sign(&config.auth, &identity, TOKEN_TTL).unwrap_or_default();
    let key = config.api.key.as_ref().map(Secret::expose).unwrap_or_default();
    let key = String::from_utf8_lossy(key);
    let post = format!("curl -s -H 'X-API-Key: {key}' http://{address}/api");
    let text = format!(
        "fanfare listens on http://{address}/ (open it in two tabs)

a token for user 42, for 24 hours:
  {token}
connect:
  ws://{address}/ws/chat?token={token}
push, with the key of this run:
  {post}/broadcast_all -d '{{\"data\":{{\"type\":\"notification\",\"text\":\"hello, all\"}}}}'
  {post}/send_to_user -d '{{\"user\":42,\"data\":{{\"type\":\"notification\",\"text\":\"hello, 42\"}}}}'
  {post}/info -d '{{}}'
"
    );
    // Whoever closed standard output does not want to read it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn random_secret() -> Result<Secret, Box<dyn Error>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("the system has no randomness: {error}"))?;
    Ok(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
