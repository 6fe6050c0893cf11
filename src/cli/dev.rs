//! `fanfare dev`: what a first try needs, made for this run alone.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fanfare::config::{
    Config, JoinLeave, Loaded, Namespace, Publish, Recovery, Secret, Subscribe, Switch,
};
use fanfare::{Identity, UserId, auth};

/// Turns the page on, tells more, and makes the secrets that are not given. Returns the API key as
/// it may be shown: one that was given goes by its variable.
pub(crate) fn complete(loaded: &mut Loaded) -> Result<String, Box<dyn Error>> {
    let Loaded { config, origins, warnings, .. } = loaded;
    config.server.dev = true;
    let page = config.server.internal_bind.unwrap_or(config.server.bind);
    if !page.ip().is_loopback() {
        warnings.push(
            "the page gives tokens to whoever opens it; bind dev to 127.0.0.1 alone".to_owned(),
        );
    }
    if !origins.contains_key("log.filter") {
        config.log.filter = "info,fanfare=debug".to_owned();
    }
    if !origins.keys().any(|key| key.starts_with("channel.")) {
        open(&mut config.channel);
    }
    if config.auth.hmac_secret.is_none() {
        config.auth.hmac_secret = Some(Secret::new(random_text()?));
    }
    if config.api.key.is_some() {
        return Ok("$FANFARE_API_KEY".to_owned());
    }
    let key = random_text()?;
    config.api.key = Some(Secret::new(key.as_str()));
    Ok(key)
}

/// Prints where everything is, and lines to paste.
pub(crate) fn greet(config: &Config, key: &str) {
    let address = config.server.bind;
    let internal = config.server.internal_bind.unwrap_or(address);
    let identity = Identity::new(UserId::from(42)).named("Ada");
    let token = auth::sign(&config.auth, &identity, TOKEN_TTL).unwrap_or_default();
    let post = format!("curl -s -H \"X-API-Key: {key}\" http://{internal}/api");
    let text = format!(
        "fanfare listens on http://{internal}/ (open it in two tabs)

a token for user 42, for 24 hours (for others: export FANFARE_AUTH_HMAC_SECRET first, then fanfare token):
  {token}
connect:
  ws://{address}/ws/chat?token={token}
push:
  {post}/broadcast_all -d '{{\"data\":{{\"type\":\"notification\",\"text\":\"hello, all\"}}}}'
  {post}/send_to_user -d '{{\"user\":42,\"data\":{{\"type\":\"notification\",\"text\":\"hello, 42\"}}}}'
  {post}/info -d '{{}}'
channels, open to every user here (the first line is for a centrifuge SDK):
  ws://{address}/connection/websocket
  curl -sN 'http://{address}/sse?channels=news&token={token}'
  {post}/publish -d '{{\"channel\":\"news\",\"data\":{{\"text\":\"hello, readers\"}}}}'
"
    );
    // Whoever closed standard output does not want to read it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Lets everyone try what channels can do.
fn open(channel: &mut Namespace) {
    channel.subscribe = Subscribe::Anyone;
    channel.publish = Publish::Subscribers;
    channel.history_size = 100;
    channel.recovery = Recovery::Stream;
    channel.presence = Switch::On;
    channel.join_leave = JoinLeave::User;
}

fn random_text() -> Result<String, Box<dyn Error>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("the system has no randomness: {error}"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
