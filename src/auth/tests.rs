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
    for value in [json!("é".repeat(128) + "x"), json!(1), json!(true), json!({}), json!(["A"])] {
        assert_eq!(name(value).err(), Some(TokenError::Name));
    }
}

#[test]
fn expiry_is_required_and_exact() {
    let expires =
        |exp: Value| verify_claims(&json!({"exp": exp, "sub": 1}).to_string()).map(|it| it.expires);
    assert_eq!(expires(json!(NOW + 1)), Ok(Some(at(NOW as f64 + 1.0))));
    assert_eq!(expires(json!(NOW as f64 + 0.25)), Ok(Some(at(NOW as f64 + 0.25))));
    for past in [json!(NOW), json!(NOW - 1), json!(0), json!(-1), json!(-1e300)] {
        assert_eq!(expires(past), Err(TokenError::Expired));
    }
    for unreadable in [json!(null), json!("1900000000"), json!(true), json!([1]), json!(1e300)] {
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
    for malformed in ["x", ".", "..", "...", "a.b", "é.é.é", &array, &twice, &token(HEADER, "[]")]
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
