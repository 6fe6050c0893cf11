//! What tokens grant beyond an identity: the claims of connection and subscription tokens, as
//! Centrifugo has them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{TokenError, Verifier, numeric_date, subject};
use crate::config::{Anonymous, Auth, Switch};
use crate::hook::Consent;
use crate::protocol::json::{self, read_one_line};
use crate::user::UserId;

/// What a connection token grants.
#[derive(Debug, Default)]
pub(crate) struct ConnectionGrant {
    /// `None` is an anonymous user.
    pub(crate) user: Option<UserId>,
    pub(crate) expires: Option<SystemTime>,
    /// What others see of the connection.
    pub(crate) info: Option<Box<RawValue>>,
    /// What the server subscribes it to.
    pub(crate) subs: BTreeMap<String, SubscriptionOptions>,
}

impl ConnectionGrant {
    /// What its token, or the lack of one, and the configuration grant a peer now.
    pub(crate) fn of(verifier: &Verifier, auth: &Auth, token: &str) -> Result<Self, TokenError> {
        if token.is_empty() && auth.anonymous == Anonymous::Read {
            return Ok(Self::default());
        }
        let grant = verifier.connection(token, SystemTime::now())?;
        Ok(grant.with_personal_channel(auth))
    }

    /// What an application makes of it: whom no token names, it may name.
    pub(crate) fn agreed(
        granted: Result<Self, TokenError>,
        consent: Consent,
        auth: &Auth,
    ) -> Result<Self, TokenError> {
        let grant = match granted {
            Err(_) if consent.user.is_some() => Self::default(),
            granted => granted?,
        };
        Ok(grant.extended(consent, auth))
    }

    fn extended(mut self, consent: Consent, auth: &Auth) -> Self {
        let Consent { user, info, channels, subs, .. } = consent;
        self.user = self.user.or(user);
        self.info = info.or(self.info);
        for channel in channels {
            self.subs.entry(channel).or_default();
        }
        for (channel, consent) in subs {
            self.subs.entry(channel).or_default().extend(consent);
        }
        self.with_personal_channel(auth)
    }

    fn with_personal_channel(mut self, auth: &Auth) -> Self {
        if let Some(user) = &self.user
            && auth.personal_channel == Switch::On
            && let Some(channel) = personal_channel(auth, user)
        {
            self.subs.entry(channel).or_default();
        }
        self
    }
}

/// The channel of one user alone, which each of its connections is let into.
fn personal_channel(auth: &Auth, user: &UserId) -> Option<String> {
    let (namespace, user) = (&auth.personal_namespace, user.to_string());
    // Such a name would let in the users that it lists.
    let is_a_list = user.contains([',', '#']);
    let name =
        if namespace.is_empty() { format!("#{user}") } else { format!("{namespace}:#{user}") };
    (!is_a_list).then_some(name)
}

/// What a token says of one subscription.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct SubscriptionOptions {
    /// What others see of the connection on that channel.
    #[serde(deserialize_with = "read_one_line")]
    pub(crate) info: Option<Box<RawValue>>,
    /// What the subscriber is told when it subscribes.
    #[serde(deserialize_with = "read_one_line")]
    pub(crate) data: Option<Box<RawValue>>,
    /// What it may do: `pub` is to publish.
    pub(crate) allow: Vec<String>,
}

impl SubscriptionOptions {
    /// Adds what an application says of the subscription.
    pub(crate) fn extend(&mut self, consent: Consent) {
        let Consent { info, data, allow, .. } = consent;
        self.info = info.or(self.info.take());
        self.data = data.or(self.data.take());
        self.allow.extend(allow);
    }
}

/// What a subscription token grants.
#[derive(Debug)]
pub(crate) struct SubscriptionGrant {
    /// `None` is an anonymous user.
    pub(crate) user: Option<UserId>,
    pub(crate) channel: String,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) options: SubscriptionOptions,
}

impl Verifier {
    /// Checks a connection token. Unlike an identity's it may lack `exp`, and `sub` may be empty.
    pub(crate) fn connection(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<ConnectionGrant, TokenError> {
        let claims: ConnectionClaims = self.claims(token)?;
        if claims.channel.is_some() {
            return Err(TokenError::Channel);
        }
        let expires = expiry(claims.exp.as_deref(), claims.nbf.as_deref(), now)?;
        let mut subs = claims.subs;
        for channel in claims.channels {
            subs.entry(channel).or_default();
        }
        Ok(ConnectionGrant { user: user(claims.sub.as_deref())?, expires, info: claims.info, subs })
    }

    /// Checks a subscription token; whose and for which channel it is, the caller compares.
    pub(crate) fn subscription(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<SubscriptionGrant, TokenError> {
        let claims: SubscriptionClaims = self.claims(token)?;
        Ok(SubscriptionGrant {
            user: user(claims.sub.as_deref())?,
            channel: claims.channel,
            expires: expiry(claims.exp.as_deref(), claims.nbf.as_deref(), now)?,
            options: SubscriptionOptions { info: claims.info, data: None, allow: claims.allow },
        })
    }
}

#[derive(Deserialize)]
struct ConnectionClaims {
    exp: Option<Box<RawValue>>,
    nbf: Option<Box<RawValue>>,
    sub: Option<Box<RawValue>>,
    channel: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "read_one_line")]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    subs: BTreeMap<String, SubscriptionOptions>,
}

#[derive(Deserialize)]
struct SubscriptionClaims {
    exp: Option<Box<RawValue>>,
    nbf: Option<Box<RawValue>>,
    sub: Option<Box<RawValue>>,
    channel: String,
    #[serde(default, deserialize_with = "read_one_line")]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    allow: Vec<String>,
}

/// Until when a token is valid, if it ends at all.
fn expiry(
    exp: Option<&RawValue>,
    nbf: Option<&RawValue>,
    now: SystemTime,
) -> Result<Option<SystemTime>, TokenError> {
    let date = |claim: Option<&RawValue>, error| {
        claim.map(|raw| numeric_date(raw).ok_or(error)).transpose()
    };
    if date(nbf, TokenError::NotBefore)?.is_some_and(|nbf| nbf > now) {
        return Err(TokenError::NotYetValid);
    }
    let expires = date(exp, TokenError::Expiry)?;
    if expires.is_some_and(|expires| expires <= now) {
        return Err(TokenError::Expired);
    }
    Ok(expires)
}

fn user(sub: Option<&RawValue>) -> Result<Option<UserId>, TokenError> {
    let Some(sub) = sub else { return Ok(None) };
    if json::text(sub).is_some_and(|text| text.is_empty()) {
        return Ok(None);
    }
    subject(sub).map(Some).ok_or(TokenError::Subject)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::super::{choose_provider, sign_subscription};
    use super::*;
    use crate::config::Secret;

    const SECRET: &str = "a secret of tests that has thirty-two bytes";

    fn verifier() -> Verifier {
        let hmac_secret = Some(Secret::new(SECRET));
        Verifier::new(&Auth { hmac_secret, ..Auth::default() })
    }

    fn token(claims: &Value) -> String {
        choose_provider();
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1000)
    }

    fn connection(claims: &Value) -> Result<ConnectionGrant, TokenError> {
        verifier().connection(&token(claims), now())
    }

    #[test]
    fn a_connection_token_may_lack_expiry_and_user() {
        let grant = connection(&json!({})).unwrap();
        assert_eq!((grant.user, grant.expires), (None, None));
        assert_eq!(connection(&json!({"sub": ""})).unwrap().user, None);
        let grant = connection(&json!({"sub": "42", "exp": 1001})).unwrap();
        assert_eq!(grant.user, Some(UserId::from(42)));
        assert_eq!(grant.expires, Some(now() + Duration::from_secs(1)));
    }

    #[test]
    fn a_subscription_token_connects_nobody() {
        for claims in [json!({"sub": "42", "channel": "news"}), json!({"channel": ""})] {
            assert_eq!(connection(&claims).err(), Some(TokenError::Channel), "{claims}");
        }
    }

    #[test]
    fn a_personal_channel_is_of_one_user_alone() {
        let auth = Auth { personal_namespace: "user".into(), ..Auth::default() };
        let channel = |user| personal_channel(&auth, &UserId::parse(user).unwrap());
        assert_eq!(channel("42").as_deref(), Some("user:#42"));
        assert_eq!((channel("41,42"), channel("a#b")), (None, None));
    }

    #[test]
    fn channels_and_subs_are_subscriptions() {
        let claims = json!({
            "channels": ["a", "b"],
            "subs": {"b": {"info": {"x": 1}, "allow": ["pub"]}, "c": {}},
            "info": {"name": "Ada"},
        });
        let grant = connection(&claims).unwrap();
        assert_eq!(grant.subs.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(grant.subs["b"].info.as_ref().unwrap().get(), r#"{"x":1}"#);
        assert_eq!(grant.subs["b"].allow, ["pub"]);
        assert_eq!(grant.info.unwrap().get(), r#"{"name":"Ada"}"#);
    }

    #[test]
    fn times_and_types_are_judged() {
        for (claims, error) in [
            (json!({"exp": 1000}), TokenError::Expired),
            (json!({"exp": "soon"}), TokenError::Expiry),
            (json!({"nbf": 1001}), TokenError::NotYetValid),
            (json!({"nbf": []}), TokenError::NotBefore),
            (json!({"sub": 1.5}), TokenError::Subject),
            (json!({"channels": "a"}), TokenError::Malformed),
        ] {
            assert_eq!(connection(&claims).err(), Some(error), "{claims}");
        }
    }

    #[test]
    fn a_subscription_token_names_its_channel() {
        let claims = json!({"sub": "42", "channel": "news", "exp": 1001, "info": 1});
        let grant = verifier().subscription(&token(&claims), now()).unwrap();
        assert_eq!((grant.channel.as_str(), grant.user), ("news", Some(UserId::from(42))));
        assert_eq!(grant.options.info.unwrap().get(), "1");
        let auth = Auth { hmac_secret: Some(Secret::new(SECRET)), ..Auth::default() };
        let user = UserId::from(42);
        let signed = sign_subscription(&auth, &user, "news", Duration::from_secs(1)).unwrap();
        let grant = verifier().subscription(&signed, now()).unwrap();
        assert_eq!((grant.channel.as_str(), grant.user), ("news", Some(user)));
        let nameless = verifier().subscription(&token(&json!({"sub": "42"})), now());
        assert_eq!(nameless.err(), Some(TokenError::Malformed));
    }
}
