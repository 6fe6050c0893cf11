//! Credentials to [`Identity`]: JSON Web Tokens (RFC 7519) signed with a shared secret.

pub(crate) mod grant;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config;
use crate::protocol::json;
use crate::user::{Identity, UserId};

/// Checks tokens against one secret and an allow-list of algorithms.
///
/// A token must carry `exp` and `sub`; `nbf` counts if it is there; times are exact, without
/// leeway. `aud`, `iss` and other claims are not looked at. A header with `crit` is refused, since
/// no extension is understood (RFC 7515 section 4.1.11).
#[derive(Clone, Debug)]
pub struct Verifier {
    key: Option<DecodingKey>,
    validation: Validation,
}

impl Verifier {
    /// A verifier for `auth.*`. Without a secret every token is invalid.
    pub fn new(auth: &config::Auth) -> Self {
        choose_provider();
        let key = auth.hmac_secret.as_ref().map(|key| DecodingKey::from_secret(key.expose()));
        let mut validation = Validation::default();
        validation.algorithms.clone_from(&auth.algorithms);
        // Claims are ours to judge: the crate passes over those that have a wrong type.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        Self { key, validation }
    }

    /// Says whom a compact token (RFC 7515 section 7.1) identifies at the time `now`, until
    /// when, and under which name. An empty token is a missing one.
    ///
    /// # Errors
    ///
    /// The reason is for logs and metrics; a peer must only learn that its token is invalid.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, TokenError> {
        self.claims::<Claims>(token)?.identity(now)
    }

    /// The claims of a token whose signature and header are in order.
    fn claims<T: DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let key = self.key.as_ref().ok_or(TokenError::NoSecret)?;
        let token = jsonwebtoken::decode::<T>(token, key, &self.validation)
            .map_err(|error| TokenError::from_library(&error))?;
        if token.header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        Ok(token.claims)
    }
}

/// Signs a token that [`Verifier::verify`] accepts under the same settings, for `ttl` from now
/// rounded up to a second. `identity.expires` is not looked at.
///
/// # Errors
///
/// The settings must hold a secret and, first in their list, an HMAC algorithm; the name at most
/// [`NAME_MAX`] bytes.
pub fn sign(auth: &config::Auth, identity: &Identity, ttl: Duration) -> Result<String, SignError> {
    if identity.name.len() > NAME_MAX {
        return Err(SignError::Name);
    }
    sign_claims(auth, &identity.user, What::Name(&identity.name), ttl)
}

/// Signs a subscription token, by which `user` may subscribe to `channel` whatever its namespace
/// says, for `ttl` from now rounded up to a second. That there can be such a channel is not checked.
///
/// # Errors
///
/// The settings must hold a secret and, first in their list, an HMAC algorithm.
pub fn sign_subscription(
    auth: &config::Auth,
    user: &UserId,
    channel: &str,
    ttl: Duration,
) -> Result<String, SignError> {
    sign_claims(auth, user, What::Channel(channel), ttl)
}

fn sign_claims(
    auth: &config::Auth,
    sub: &UserId,
    what: What<'_>,
    ttl: Duration,
) -> Result<String, SignError> {
    let secret = auth.hmac_secret.as_ref().ok_or(SignError::NoSecret)?;
    let algorithm = auth.algorithms.first().copied().ok_or(SignError::Algorithm)?;
    choose_provider();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = now.saturating_add(ttl).as_secs_f64().ceil() as u64;
    let claims = NewClaims { sub, what, iat: now.as_secs(), exp };
    let key = EncodingKey::from_secret(secret.expose());
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|_| SignError::Algorithm)
}

/// Why a token is invalid. The texts are for logs: they never contain any of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// An `alg` that `auth.algorithms` does not allow.
    #[error("the token's algorithm is not in auth.algorithms")]
    Algorithm,
    /// A `channel` claim: a token for one subscription is none for a connection.
    #[error("the token is for a subscription; connect with one that has no channel claim")]
    Channel,
    /// The header lists critical extensions.
    #[error("the token's header has a crit member, which is not supported")]
    Critical,
    /// `exp` has passed.
    #[error("the token has expired; issue a new one")]
    Expired,
    /// No `exp`, or one that is not a number of seconds since 1970.
    #[error("the token needs an exp claim in seconds since 1970")]
    Expiry,
    /// Not three parts of base64url, a part that is not the JSON it should be, or an algorithm
    /// that no one knows, `none` among them.
    #[error("the token is not a signed compact JWT")]
    Malformed,
    /// No token was sent.
    #[error("no token was sent; use ?token=, Authorization or Sec-WebSocket-Protocol")]
    Missing,
    /// A `name` that is no string or is over [`NAME_MAX`].
    #[error("the token's name must be a string of at most 256 bytes")]
    Name,
    /// There is nothing to check against.
    #[error("no token can be checked; set auth.hmac_secret")]
    NoSecret,
    /// An `nbf` that is not a number of seconds since 1970.
    #[error("the token's nbf claim must be in seconds since 1970")]
    NotBefore,
    /// `nbf` lies ahead.
    #[error("the token is not valid yet; compare the clocks")]
    NotYetValid,
    /// Signed with another secret, or altered.
    #[error("the token's signature does not match; compare the secrets")]
    Signature,
    /// No `sub`, or one that names no user.
    #[error("the token needs a sub claim: an integer within ±(2^53-1) or 1 to 128 bytes of text")]
    Subject,
}

impl TokenError {
    fn from_library(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm
            | ErrorKind::InvalidAlgorithmName
            | ErrorKind::InvalidKeyFormat
            | ErrorKind::MissingAlgorithm
            | ErrorKind::UnsupportedAlgorithm => Self::Algorithm,
            _ => Self::Malformed,
        }
    }

    /// The value of the metric label `reason`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::Channel => "channel",
            Self::Critical => "critical",
            Self::Expired => "expired",
            Self::Expiry => "expiry",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Name => "name",
            Self::NoSecret => "no_secret",
            Self::NotBefore => "not_before",
            Self::NotYetValid => "not_yet_valid",
            Self::Signature => "signature",
            Self::Subject => "subject",
        }
    }
}

/// Why [`sign`] made no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No algorithm is allowed, or the first is not an HMAC.
    #[error("the first of auth.algorithms must be HS256, HS384 or HS512")]
    Algorithm,
    /// The name is over [`NAME_MAX`].
    #[error("the name takes at most 256 bytes")]
    Name,
    /// There is nothing to sign with.
    #[error("no token can be signed; set auth.hmac_secret")]
    NoSecret,
}

/// Claims as they came, so that each can be refused for its own reason. `null` is an absent one.
#[derive(Deserialize)]
struct Claims {
    exp: Option<Box<RawValue>>,
    nbf: Option<Box<RawValue>>,
    sub: Option<Box<RawValue>>,
    name: Option<Box<RawValue>>,
}

impl Claims {
    fn identity(&self, now: SystemTime) -> Result<Identity, TokenError> {
        let expires = self.exp.as_deref().and_then(numeric_date).ok_or(TokenError::Expiry)?;
        if expires <= now {
            return Err(TokenError::Expired);
        }
        if let Some(nbf) = &self.nbf
            && numeric_date(nbf).ok_or(TokenError::NotBefore)? > now
        {
            return Err(TokenError::NotYetValid);
        }
        let user = self.sub.as_deref().and_then(subject).ok_or(TokenError::Subject)?;
        let identity = match &self.name {
            None => Identity::new(user),
            Some(name) => {
                let name = json::text(name).filter(|name| name.len() <= NAME_MAX);
                let name = Arc::from(name.ok_or(TokenError::Name)?);
                Identity { user, name, expires: None }
            }
        };
        Ok(Identity { expires: Some(expires), ..identity })
    }
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a UserId,
    #[serde(flatten)]
    what: What<'a>,
    iat: u64,
    exp: u64,
}

/// What a token says of its user: the name of a connection's, or where that may subscribe.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum What<'a> {
    Name(&'a str),
    Channel(&'a str),
}

/// Names the one backend, so that an embedder that turns on a second cannot make checks panic.
fn choose_provider() {
    // It was chosen before, here or by the embedder.
    let _ = DEFAULT_PROVIDER.install_default();
}

/// A NumericDate (RFC 7519 section 2): seconds since 1970, perhaps with a fraction. What lies
/// before 1970 is taken for it; what no clock can reach is refused.
fn numeric_date(raw: &RawValue) -> Option<SystemTime> {
    let seconds = raw.get().parse::<f64>().ok()?.max(0.0);
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// A user from a JSON integer or string. JSON's own grammar has excluded `042` and `+1` already.
fn subject(raw: &RawValue) -> Option<UserId> {
    match json::text(raw) {
        Some(text) => UserId::parse(&text).ok(),
        None => UserId::number(raw.get().parse().ok()?).ok(),
    }
}

/// Bytes of the longest `name`: each goes out with every message its user says.
pub const NAME_MAX: usize = 256;

#[cfg(test)]
mod tests;
