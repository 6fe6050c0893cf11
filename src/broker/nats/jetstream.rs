//! What JetStream keeps, one record a step: a change says which record it is a change of, so that of
//! several nodes that change the same one does, and the others look again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, ConsumerErrorKind, DirectGetError, DirectGetErrorKind, Stream,
};
use async_nats::jetstream::{self, Context, Message, publish::PublishAck};
use async_nats::{Client, Request, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::PATIENCE;
use super::error::{self, JetStreamError, lost, patiently};
use super::hear::Hearing;
use super::names::{Names, Store};

/// The streams of a prefix.
#[derive(Clone, Debug)]
pub(super) struct JetStream {
    client: Client,
    context: Context,
    hearing: Hearing,
    names: Names,
}

/// What is kept under a subject.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) subject: Subject,
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    /// When it was stored, by the server's clock: since 1970.
    pub(super) time: Duration,
}

/// Where something is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    /// Whether it was there already, under the same idempotency key.
    pub(super) is_duplicate: bool,
}

/// How a stream is.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    /// When it was made, which tells it from one before of the same name.
    pub(super) created: String,
    pub(super) state: State,
}

#[derive(Debug, Deserialize)]
pub(super) struct State {
    #[serde(default, rename = "num_subjects")]
    pub(super) subjects_count: usize,
    /// Those that were asked for.
    #[serde(default)]
    pub(super) subjects: HashMap<String, IgnoredAny>,
}

/// How far what reads has come.
#[derive(Debug, Deserialize)]
struct ConsumerInfo {
    #[serde(rename = "num_pending")]
    pending: u64,
}

impl JetStream {
    pub(super) fn new(client: Client, hearing: Hearing, names: Names) -> Self {
        let context = jetstream::ContextBuilder::new().timeout(PATIENCE).build(client.clone());
        Self { client, context, hearing, names }
    }

    /// Whether there is JetStream for this node.
    pub(super) async fn check(&self) -> Result<(), JetStreamError> {
        self.send::<Value>("$JS.API.INFO".to_owned(), Request::new()).await.map(drop)
    }

    /// Makes a stream, unless it is there. One that is there is only ever made to keep more, as nodes
    /// with other settings may use it too.
    pub(super) async fn make(&self, wanted: Config) -> Result<(), String> {
        let Ok(stream) = self.context.get_stream(&wanted.name).await else {
            let made = self.context.get_or_create_stream(wanted).await;
            return made.map(drop).map_err(|error| error.to_string());
        };
        let before = stream.cached_info().config.clone();
        if before.republish != wanted.republish {
            return Err(REPUBLISH.to_owned());
        }
        // What has no end of its own must not be given one.
        if wanted.max_age.is_zero() && !before.max_age.is_zero() {
            return Err(AGE.to_owned());
        }
        let after = Config {
            max_age: more(before.max_age, wanted.max_age),
            max_messages_per_subject: more(
                before.max_messages_per_subject,
                wanted.max_messages_per_subject,
            ),
            allow_direct: true,
            ..before.clone()
        };
        if before == after {
            return Ok(());
        }
        self.context.update_stream(after).await.map(drop).map_err(|error| error.to_string())
    }

    /// Stores; if the last record of the subject is to be an `expected` one, or none where that is 0, only
    /// then.
    pub(super) async fn put(
        &self,
        subject: String,
        expected: Option<u64>,
        id: Option<&str>,
        payload: Bytes,
    ) -> Result<Stored, JetStreamError> {
        let mut headers = String::new();
        if let Some(expected) = expected {
            headers += &format!("Nats-Expected-Last-Subject-Sequence: {expected}\r\n");
        }
        if let Some(id) = id {
            headers += &format!("Nats-Msg-Id: {id}\r\n");
        }
        let answer = self.hearing.ask(subject, headers, payload).await?;
        let PublishAck { sequence, duplicate, .. } = parse(&answer)?;
        Ok(Stored { sequence, is_duplicate: duplicate })
    }

    /// The last record of a subject.
    pub(super) async fn last(
        &self,
        store: Store,
        subject: &str,
    ) -> Result<Option<Record>, JetStreamError> {
        let stream = self.stream(store).await?;
        found(stream.direct_get_last_for_subject(subject).await)
    }

    /// The record of a number.
    pub(super) async fn at(
        &self,
        store: Store,
        sequence: u64,
    ) -> Result<Option<Record>, JetStreamError> {
        let stream = self.stream(store).await?;
        found(stream.direct_get(sequence).await)
    }

    /// Changes the record of a subject to what is made of it; says whether there was one, and is.
    pub(super) async fn change(
        &self,
        store: Store,
        subject: &str,
        make: impl Fn(Option<&Record>) -> Option<Vec<u8>>,
    ) -> Result<(bool, bool), JetStreamError> {
        let begun = Instant::now();
        patiently(async {
            loop {
                let before = self.last(store, subject).await?;
                let sequence = before.as_ref().map_or(0, |record| record.sequence);
                let done = match make(before.as_ref()) {
                    Some(after) => {
                        let put = self.put(subject.to_owned(), Some(sequence), None, after.into());
                        put.await.map(|_| (before.is_some(), true))
                    }
                    None if before.is_none() => return Ok((false, false)),
                    None => self.delete(store, sequence).await.map(|()| (true, false)),
                };
                if !error::should_retry(&done, begun) {
                    return done;
                }
            }
        })
        .await
    }

    /// Forgets what a subject has before a record, or all.
    pub(super) async fn forget(
        &self,
        store: Store,
        subject: &str,
        before: Option<u64>,
    ) -> Result<(), JetStreamError> {
        let request = match before {
            Some(before) => json!({"filter": subject, "seq": before}),
            None => json!({"filter": subject}),
        };
        self.ask::<Value>("STREAM.PURGE", store, &request).await.map(drop)
    }

    /// How a stream is, and which of its subjects match.
    pub(super) async fn info(
        &self,
        store: Store,
        filter: Option<&str>,
    ) -> Result<Info, JetStreamError> {
        let request = filter.map_or(json!({}), |filter| json!({"subjects_filter": filter}));
        self.ask("STREAM.INFO", store, &request).await
    }

    /// What is made of all records whose subjects match, in the order in which they were stored.
    pub(super) async fn all<T>(
        &self,
        store: Store,
        filter: String,
        make: impl Fn(Record) -> Option<T>,
    ) -> Result<Vec<T>, JetStreamError> {
        let stream = self.stream(store).await?;
        let config = pull::Config {
            filter_subject: filter,
            ack_policy: AckPolicy::None,
            memory_storage: true,
            inactive_threshold: IDLE,
            ..pull::Config::default()
        };
        let consumer =
            stream.create_consumer(config).await.map_err(|error| match error.kind() {
                ConsumerErrorKind::JetStream(error) => error.into(),
                _ => lost(&error),
            })?;
        let name = &consumer.cached_info().name;
        let (mut left, mut made) = (consumer.cached_info().num_pending, Vec::new());
        while left > 0 {
            let page = self.page(&consumer, PAGE.min(left as usize)).await?;
            left -= page.len() as u64;
            if page.is_empty() {
                if self.consumer(name, store).await?.pending > 0 {
                    return Err(JetStreamError::Refused(
                        "its records do not come in time".to_owned(),
                    ));
                }
                // The rest was forgotten meanwhile.
                left = 0;
            }
            made.extend(page.into_iter().filter_map(&make));
        }
        // Without that it goes by itself, a little later.
        let _ = stream.delete_consumer(name).await;
        Ok(made)
    }

    /// The next records, no more than the server can have wait for this node.
    async fn page(
        &self,
        consumer: &Consumer<pull::Config>,
        most: usize,
    ) -> Result<Vec<Record>, JetStreamError> {
        let fetch = consumer.fetch().max_messages(most).max_bytes(self.client.max_payload() * 2);
        let fetch = fetch.expires(MOMENT).messages();
        let mut page = patiently(async { fetch.await.map_err(|error| lost(&error)) }).await?;
        let mut records = Vec::new();
        while let Some(message) = patiently(async { Ok(page.next().await) }).await? {
            match message {
                Ok(message) => records.push(Record::try_from(message)?),
                // What does not fit comes with the next.
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(records)
    }

    /// Deletes a record, unless it is another one by now.
    async fn delete(&self, store: Store, sequence: u64) -> Result<(), JetStreamError> {
        let request = json!({"seq": sequence, "no_erase": true});
        self.ask::<Value>("STREAM.MSG.DELETE", store, &request).await.map(drop)
    }

    async fn consumer(&self, name: &str, store: Store) -> Result<ConsumerInfo, JetStreamError> {
        let subject = format!("$JS.API.CONSUMER.INFO.{}.{name}", self.names.stream(store));
        self.send(subject, Request::new()).await
    }

    async fn stream(&self, store: Store) -> Result<Stream<()>, JetStreamError> {
        let name = self.names.stream(store);
        self.context.get_stream_no_info(name).await.map_err(|error| lost(&error))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        call: &str,
        store: Store,
        request: &Value,
    ) -> Result<T, JetStreamError> {
        let subject = format!("$JS.API.{call}.{}", self.names.stream(store));
        self.send(subject, Request::new().payload(request.to_string().into())).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        subject: String,
        request: Request,
    ) -> Result<T, JetStreamError> {
        let request = request.timeout(Some(PATIENCE));
        parse(&self.client.send_request(subject, request).await?.payload)
    }
}

impl From<StreamMessage> for Record {
    fn from(message: StreamMessage) -> Self {
        let time = since_1970(message.time.unix_timestamp_nanos());
        Self {
            subject: message.subject,
            sequence: message.sequence,
            payload: message.payload,
            time,
        }
    }
}

impl TryFrom<Message> for Record {
    type Error = JetStreamError;

    fn try_from(message: Message) -> Result<Self, JetStreamError> {
        let info = message.info().map_err(|error| JetStreamError::Lost(error.to_string()))?;
        let (sequence, time) = (info.stream_sequence, info.published.unix_timestamp_nanos());
        let async_nats::Message { subject, payload, .. } = message.message;
        Ok(Self { subject, sequence, payload, time: since_1970(time) })
    }
}

/// What JetStream answers.
fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, JetStreamError> {
    match serde_json::from_slice(answer) {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Err { error }) => Err(error.into()),
        Err(error) => Err(lost(&error)),
    }
}

fn found(answer: Result<StreamMessage, DirectGetError>) -> Result<Option<Record>, JetStreamError> {
    match answer {
        Ok(message) => Ok(Some(message.into())),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(lost(&error)),
    }
}

/// The larger bound, where none is as large as any.
fn more<T: Ord + Default>(one: T, other: T) -> T {
    if one <= T::default() {
        one
    } else if other <= T::default() {
        other
    } else {
        one.max(other)
    }
}

fn since_1970(nanoseconds: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

const REPUBLISH: &str =
    "what it stores is not sent on as a node needs it; delete it or set another broker.prefix";

const AGE: &str = "what it stores is forgotten after a time; let it keep that, or delete it";

/// Records that are fetched at once.
const PAGE: usize = 256;

/// How long records are waited for that were counted and then forgotten.
const MOMENT: Duration = Duration::from_millis(500);

/// How long what reads stays at the server that nobody uses any more.
const IDLE: Duration = Duration::from_secs(10);
