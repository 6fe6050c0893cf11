//! The JSON between server and application.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Act, Change, Consent, Failure, Notice, Question, Refusal};
use crate::close::CloseReason;
use crate::protocol::json;
use crate::user::UserId;

/// A question as it is posted.
pub(super) fn question(question: &Question<'_>) -> String {
    let Question { client, user, act } = *question;
    let user = user.map(ToString::to_string).unwrap_or_default();
    let call = act.call();
    let body = Asked { call: call.label(), client, user: &user, ..Asked::default() };
    json::encode(&match act {
        Act::Connect { data, name, version } => Asked { data, name, version, ..body },
        Act::Subscribe { channel, data } => Asked { channel, data, ..body },
        Act::Publish { channel, data } => Asked { channel, data: Some(data), ..body },
        Act::Message { data } => Asked { data: Some(data), ..body },
        Act::Rpc { method, data } => Asked { method, data, ..body },
    })
}

/// What the application says to a question.
pub(super) fn answer(body: &[u8]) -> Result<Consent, Refusal> {
    let text = std::str::from_utf8(body).ok();
    let answer: Option<Answer> = text.and_then(json::object);
    let unknown = Refusal::Failed(Failure::Answer);
    match answer.ok_or(unknown.clone())? {
        Answer { disconnect: Some(Disconnect { code, reason }), .. } => {
            Err(CloseReason::new(code, reason).map_or(unknown, Refusal::Close))
        }
        Answer { error: Some(Error { code: 0, .. }), .. } => Err(unknown),
        Answer { error: Some(Error { code, message, temporary }), .. } => {
            Err(Refusal::Error { code, message, temporary })
        }
        Answer { result, .. } => Ok(result.unwrap_or_default()),
    }
}

/// Notices as they are posted.
pub(super) fn notices(node: &str, notices: &[Notice]) -> String {
    let notices: Vec<_> = notices.iter().map(Told::new).collect();
    json::encode(&Batch { call: "notices", node, notices })
}

/// A user from a JSON integer or string, of which the empty one is nobody.
pub(super) fn user<'de, D: Deserializer<'de>>(json: D) -> Result<Option<UserId>, D::Error> {
    let raw: Option<Box<RawValue>> = Deserialize::deserialize(json)?;
    let named = raw.filter(|raw| !matches!(raw.get(), "null" | r#""""#));
    let user = named.map(|raw| serde_json::from_str(raw.get())).transpose();
    user.map_err(serde::de::Error::custom)
}

/// A time from seconds since 1970, of which 0 is none.
pub(super) fn time<'de, D: Deserializer<'de>>(json: D) -> Result<Option<SystemTime>, D::Error> {
    let seconds: Option<u64> = Deserialize::deserialize(json)?;
    let after = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    Ok(seconds.filter(|seconds| *seconds > 0).and_then(after))
}

#[derive(Default, Serialize)]
struct Asked<'a> {
    call: &'static str,
    client: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    channel: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Consent>,
    error: Option<Error>,
    disconnect: Option<Disconnect>,
}

#[derive(Deserialize)]
struct Error {
    code: u32,
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct Disconnect {
    code: u16,
    #[serde(default)]
    reason: String,
}

#[derive(Serialize)]
struct Batch<'a> {
    call: &'static str,
    node: &'a str,
    notices: Vec<Told<'a>>,
}

#[derive(Serialize)]
struct Told<'a> {
    number: u64,
    /// Milliseconds since 1970.
    at: u64,
    notice: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

impl<'a> Told<'a> {
    fn new(notice: &'a Notice) -> Self {
        let (channel, user) = match &notice.change {
            Change::ChannelOccupied(channel) | Change::ChannelVacated(channel) => {
                (Some(&**channel), None)
            }
            Change::UserJoined(user) | Change::UserLeft(user) => (None, Some(user.to_string())),
        };
        let at = notice.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Self { number: notice.number, at, notice: notice.change.label(), channel, user }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/hooks.md");

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_documented_is_what_is_posted() {
        let (tab, code) = (raw(r#"{"tab":1}"#), raw(r#"{"code":7}"#));
        let user = UserId::from(42);
        let said = r#"{"type":"message","user_id":42,"name":"Ada","body":"hi"}"#;
        for (client, act) in [
            ("5f0c…", Act::Connect { data: Some(tab), name: "js", version: "5.5.2" }),
            ("5f0c…", Act::Subscribe { channel: "news:a", data: Some(code) }),
            ("5f0c…", Act::Publish { channel: "news:a", data: raw(r#"{"text":"hi"}"#) }),
            ("5f0c…", Act::Message { data: raw(r#"{"typing":true}"#) }),
            ("5f0c…", Act::Rpc { method: "add", data: Some(raw("[1,2]")) }),
            ("", Act::Publish { channel: "chat", data: raw(said) }),
        ] {
            let posted = question(&Question { client, user: Some(&user), act });
            assert!(DOCUMENTED.contains(&posted), "{posted}");
        }
        let at = UNIX_EPOCH + Duration::from_millis(1_795_642_835_120);
        let joined = Notice { number: 1, at, change: Change::UserJoined(user) };
        let at = at + Duration::from_millis(1);
        let occupied = Notice { number: 2, at, change: Change::ChannelOccupied("news:a".into()) };
        let posted = notices("a3c1d5e7f9021b4d", &[joined, occupied]);
        assert!(DOCUMENTED.contains(&posted), "{posted}");
    }

    #[test]
    fn documented_answers_are_understood() {
        let (_, answers) = DOCUMENTED.split_once("with one of these").unwrap();
        let mut lines = answers.lines().filter(|line| line.starts_with('{'));
        let mut next = || answer(lines.next().unwrap().as_bytes());
        assert!(next().is_ok());
        assert!(matches!(next(), Err(Refusal::Error { code: 1000, temporary: false, .. })));
        assert!(matches!(next(), Err(Refusal::Close(reason)) if reason.code() == 4500));
    }

    #[test]
    fn a_user_is_text_or_an_integer_and_what_is_empty_is_none() {
        let consent = |json: &str| answer(format!(r#"{{"result":{json}}}"#).as_bytes()).ok();
        let user = |json: &str| consent(json).unwrap().user;
        assert_eq!(user(r#"{"user":"42"}"#), user(r#"{"user":42}"#));
        assert_eq!(user(r#"{"user":"ada"}"#), Some(UserId::parse("ada").unwrap()));
        for nobody in [r#"{"user":""}"#, r#"{"user":null}"#, "{}", "null"] {
            assert_eq!(user(nobody), None, "{nobody}");
        }
        assert!(consent(r#"{"user":1.5}"#).is_none() && consent(r#"{"user":true}"#).is_none());
        let expires = |json: &str| consent(json).unwrap().expires;
        assert_eq!(expires(r#"{"expire_at":0}"#), None);
        assert_eq!(expires(r#"{"expire_at":7}"#), Some(UNIX_EPOCH + Duration::from_secs(7)));
    }

    #[test]
    fn anything_else_is_no_answer() {
        for body in
            ["", "yes", "[]", "null", r#"{"result":1}"#, r#"{"error":{"code":0,"message":""}}"#]
        {
            let answer = answer(body.as_bytes());
            assert!(matches!(answer, Err(Refusal::Failed(Failure::Answer))), "{body}");
        }
    }
}
