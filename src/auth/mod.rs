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
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::Algorithm;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Secret;

    const NOW: u64 = 1_800_000_000;

    fn auth(algorithms: &[Algorithm]) -> config::Auth {
        let hmac_secret = Some(Secret::new("a secret of the test, 32 bytes.."));
        config::Auth { hmac_secret, algorithms: algorithms.to_vec(), ..config::Auth::default() }
    }

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    fn encode_part(part: impl AsRef<[u8]>) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(part)
    }

    /// Signs whatever it is given, as `sign` never would.
    fn token(header: &str, claims: &str) -> String {
        let secret = auth(&[]).hmac_secret.unwrap();
        let signed = format!("{}.{}", encode_part(header), encode_part(claims));
        let key = EncodingKey::from_secret(secret.expose());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256);
        format!("{signed}.{}", signature.unwrap())
    }

    fn verify(token: &str) -> Result<Identity, TokenError> {
        Verifier::new(&auth(&[Algorithm::HS256])).verify(token, at(NOW as f64))
    }

    fn verify_claims(claims: &str) -> Result<Identity, TokenError> {
        verify(&token(HEADER, claims))
    }

    fn refusal(claims: &Value) -> Option<TokenError> {
        verify_claims(&claims.to_string()).err()
    }

    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    #[test]
    fn signed_token_is_accepted_until_it_expires() {
        let ada = Identity::new(UserId::from(42)).named("Ada");
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let auth = auth(&[algorithm]);
            let verifier = Verifier::new(&auth);
            let ttl = Duration::from_secs(60);
            let before = SystemTime::now();
            let token = sign(&auth, &ada, ttl).unwrap();
            let after = SystemTime::now();
            let identity = verifier.verify(&token, SystemTime::now()).unwrap();
            assert_eq!((identity.user, &*identity.name), (UserId::from(42), "Ada"));
            let expires = identity.expires.unwrap();
            assert!(before + ttl <= expires, "{expires:?}");
            assert!(expires <= after + ttl + Duration::from_secs(1), "{expires:?}");
            assert_eq!(verifier.verify(&token, expires).err(), Some(TokenError::Expired));
        }
    }

    #[test]
    fn token_of_another_implementation_is_accepted() {
        // PyJWT: jwt.encode({"sub": "42", "name": "Ada", "exp": 4102444800}, key, "HS256").
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                     eyJzdWIiOiI0MiIsIm5hbWUiOiJBZGEiLCJleHAiOjQxMDI0NDQ4MDB9.\
                     r8_X3xq-4IaNy32jxdlQ1UuODj-6Q96VyGgFY-hBOlA";
        let identity = verify(token).unwrap();
        assert_eq!((identity.user, &*identity.name), (UserId::from(42), "Ada"));
        assert_eq!(identity.expires, Some(at(4_102_444_800.0)));
    }

    #[test]
    fn integers_and_text_are_subjects() {
        let long = "u".repeat(128);
        for (sub, user) in [
            ("42", UserId::from(42)),
            ("-7", UserId::from(-7)),
            ("9007199254740991", UserId::number((1 << 53) - 1).unwrap()),
            (r#""42""#, UserId::from(42)),
            (r#""\u0034\u0032""#, UserId::from(42)),
            (r#""042""#, UserId::parse("042").unwrap()),
            (r#""ada@example""#, UserId::parse("ada@example").unwrap()),
            (&format!("\"{long}\""), UserId::parse(&long).unwrap()),
        ] {
            let identity = verify_claims(&format!(r#"{{"exp":{},"sub":{sub}}}"#, NOW + 1)).unwrap();
            assert_eq!(*identity.name, *format!("User {user}"));
            assert_eq!(identity.user, user);
        }
    }

    #[test]
    fn nothing_else_is_a_subject() {
        let long = format!("\"{}\"", "u".repeat(129));
        for sub in [
            "1.0",
            "1e3",
            "true",
            "null",
            "{}",
            "[]",
            "[42]",
            r#""""#,
            &long,
            r#""\ud800""#,
            "9007199254740992",
            "-9007199254740992",
            "99999999999999999999",
        ] {
            let refused = verify_claims(&format!(r#"{{"exp":{},"sub":{sub}}}"#, NOW + 1)).err();
            let refused_so = matches!(refused, Some(TokenError::Subject | TokenError::Malformed));
            assert!(refused_so, "{sub}: {refused:?}");
        }
        assert_eq!(refusal(&json!({"exp": NOW + 1})), Some(TokenError::Subject));
    }

    #[test]
    fn name_is_bounded_text_or_absent() {
        let claims = |name: Value| json!({"exp": NOW + 1, "sub": "ada", "name": name});
        let name = |value| verify_claims(&claims(value).to_string()).map(|it| it.name.to_string());
        assert_eq!(name(json!("Ada \"\u{1}\"")).unwrap(), "Ada \"\u{1}\"");
        assert_eq!(name(json!("")).unwrap(), "");
        assert_eq!(name(json!("é".repeat(128))).unwrap().len(), NAME_MAX);
        assert_eq!(name(Value::Null).unwrap(), "User ada");
        for value in [json!("é".repeat(128) + "x"), json!(1), json!(true), json!({}), json!(["A"])]
        {
            assert_eq!(name(value).err(), Some(TokenError::Name));
        }
    }

    #[test]
    fn expiry_is_required_and_exact() {
        let expires = |exp: Value| {
            verify_claims(&json!({"exp": exp, "sub": 1}).to_string()).map(|it| it.expires)
        };
        assert_eq!(expires(json!(NOW + 1)), Ok(Some(at(NOW as f64 + 1.0))));
        assert_eq!(expires(json!(NOW as f64 + 0.25)), Ok(Some(at(NOW as f64 + 0.25))));
        for past in [json!(NOW), json!(NOW - 1), json!(0), json!(-1), json!(-1e300)] {
            assert_eq!(expires(past), Err(TokenError::Expired));
        }
        for unreadable in [json!(null), json!("1900000000"), json!(true), json!([1]), json!(1e300)]
        {
            let refused = expires(unreadable);
            assert!(matches!(refused, Err(TokenError::Expiry | TokenError::Malformed)));
        }
        assert_eq!(refusal(&json!({"sub": 1})), Some(TokenError::Expiry));
    }

    #[test]
    fn not_before_counts_if_present() {
        let nbf = |nbf: Value| refusal(&json!({"exp": NOW + 9, "sub": 1, "nbf": nbf}));
        assert_eq!(nbf(json!(NOW)), None);
        assert_eq!(nbf(json!(null)), None);
        assert_eq!(nbf(json!(NOW as f64 + 0.5)), Some(TokenError::NotYetValid));
        assert_eq!(nbf(json!("soon")), Some(TokenError::NotBefore));
    }

    #[test]
    fn other_claims_do_not_matter() {
        let claims = json!({"exp": NOW + 1, "sub": 1, "aud": ["x"], "iss": 7, "iat": "?"});
        assert_eq!(refusal(&claims), None);
    }

    #[test]
    fn only_allowed_algorithms_pass() {
        let claims = json!({"exp": NOW + 1, "sub": 1}).to_string();
        for alg in ["HS384", "HS512", "RS256"] {
            let token = token(&format!(r#"{{"alg":"{alg}"}}"#), &claims);
            assert_eq!(verify(&token).err(), Some(TokenError::Algorithm), "{alg}");
        }
        for alg in [r#""none""#, r#""None""#, r#""""#, "null", "256"] {
            let token = token(&format!(r#"{{"alg":{alg}}}"#), &claims);
            assert_eq!(verify(&token).err(), Some(TokenError::Malformed), "{alg}");
        }
        let unsigned = format!("{}.{}.", encode_part(r#"{"alg":"none"}"#), encode_part(&claims));
        assert_eq!(verify(&unsigned).err(), Some(TokenError::Malformed));
        let critical = token(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims);
        assert_eq!(verify(&critical).err(), Some(TokenError::Critical));
    }

    #[test]
    fn allowing_what_a_secret_cannot_sign_lets_nothing_in() {
        let auth = auth(&[Algorithm::RS256]);
        let token = token(r#"{"alg":"RS256"}"#, &json!({"exp": NOW + 1, "sub": 1}).to_string());
        let refused = Verifier::new(&auth).verify(&token, at(NOW as f64)).err();
        assert_eq!(refused, Some(TokenError::Algorithm));
        let identity = Identity::new(UserId::from(1));
        assert_eq!(sign(&auth, &identity, Duration::ZERO), Err(SignError::Algorithm));
    }

    #[test]
    fn wrong_secret_and_altered_tokens_are_refused() {
        let good = token(HEADER, &json!({"exp": NOW + 1, "sub": 1}).to_string());
        let other = config::Auth { hmac_secret: Some(Secret::new("another")), ..auth(&[]) };
        let other = config::Auth { algorithms: vec![Algorithm::HS256], ..other };
        let refused = Verifier::new(&other).verify(&good, at(NOW as f64)).err();
        assert_eq!(refused, Some(TokenError::Signature));

        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let claims = encode_part(json!({"exp": NOW + 1, "sub": 2}).to_string());
        for altered in [
            format!("{header}.{claims}.{signature}"),
            format!("{signed}."),
            format!("{signed}.{}", &signature[1..]),
            format!("{signed}.{signature}="),
            format!("{signed}.{signature}A"),
        ] {
            let refused = verify(&altered).err();
            let refused_so = matches!(refused, Some(TokenError::Signature | TokenError::Malformed));
            assert!(refused_so, "{altered}: {refused:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert_eq!(verify("").err(), Some(TokenError::Missing));
        let array = token(r#"["HS256",null]"#, "{}");
        let twice = token(HEADER, r#"{"sub":1,"sub":2,"exp":1900000000}"#);
        for malformed in
            ["x", ".", "..", "...", "a.b", "é.é.é", &array, &twice, &token(HEADER, "[]")]
        {
            assert_eq!(verify(malformed).err(), Some(TokenError::Malformed), "{malformed}");
        }
    }

    #[test]
    fn without_a_secret_every_token_is_invalid() {
        let auth = config::Auth::default();
        let token = token(HEADER, &json!({"exp": NOW + 1, "sub": 1}).to_string());
        let refused = Verifier::new(&auth).verify(&token, at(NOW as f64)).err();
        assert_eq!(refused, Some(TokenError::NoSecret));
        let identity = Identity::new(UserId::from(1));
        assert_eq!(sign(&auth, &identity, Duration::ZERO), Err(SignError::NoSecret));
    }

    #[test]
    fn debug_hides_the_secret() {
        let text = format!("{:?}", Verifier::new(&auth(&[Algorithm::HS256])));
        assert!(!text.contains("secret of"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_without_panic(text in ".*", claims in ".*") {
            proptest::prop_assert!(verify(&text).is_err());
            proptest::prop_assert!(verify_claims(&claims).is_err());
        }
    }
}
