//! One peer that speaks the Centrifuge protocol: the commands it gives, carried out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::auth::TokenError;
use crate::auth::grant::{ConnectionGrant, SubscriptionOptions};
use crate::channel::history::{Page, Position};
use crate::channel::{Channel, TooManyChannels};
use crate::close::CloseReason;
use crate::config::{Namespace, Publish, Recovery, Subscribe, Switch};
use crate::connection::Connection;
use crate::error::PublishError;
use crate::message::Message;
use crate::protocol::centrifuge::{self, ClientInfo, Command, Error, Request};
use crate::protocol::json;
use crate::ring::Share;
use crate::shard::Shard;
use crate::user::{Identity, UserId};

/// The peer's side of the talk.
#[derive(Debug)]
pub(crate) struct Client {
    /// What names this connection to others.
    id: Arc<str>,
    /// Whose it is, once connected.
    who: Option<Who>,
}

#[derive(Debug)]
struct Who {
    user: Option<UserId>,
    info: Option<Box<RawValue>>,
}

/// What a connection is subscribed to, by channel.
pub(crate) type Subscriptions = HashMap<Arc<str>, Subscription>;

/// One subscription, as its connection knows it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Arc<Channel>,
    /// Where its shard keeps it.
    pub(crate) slot: usize,
    /// Under which name it is present there, if it is.
    pub(crate) client: Option<Arc<str>>,
    /// What others see of the connection on that channel.
    info: Option<Box<RawValue>>,
    may_publish: bool,
}

/// The reply to a command.
enum Reply {
    /// That of a publish which found no room in the ring.
    Overloaded(String),
    Text(String),
}

/// Why a command has no result.
enum Refusal {
    Close(CloseReason),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason)
    }
}

impl Client {
    /// A peer that has not said who it is.
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self { id, who: None }
    }

    /// Carries out the commands of one frame; what is to be answered goes out as one frame too.
    /// Gives back the commands from a publish on that found no room in the ring; with `is_last_try`
    /// that publish is refused instead.
    pub(crate) fn receive(
        &mut self,
        call: &Call<'_>,
        frame: &str,
        mut is_last_try: bool,
    ) -> Option<String> {
        let mut replies = Vec::new();
        let mut lines = centrifuge::lines(frame);
        let mut close = None;
        let mut rest = None;
        while let Some(line) = lines.next() {
            match self.carry_out(call, line) {
                Ok(None) => {}
                Ok(Some(Reply::Overloaded(_))) if !is_last_try => {
                    rest = Some([line].into_iter().chain(lines).collect::<Vec<_>>().join("\n"));
                    break;
                }
                Ok(Some(Reply::Overloaded(reply) | Reply::Text(reply))) => replies.push(reply),
                Err(reason) => {
                    close = Some(reason);
                    break;
                }
            }
            is_last_try = false;
        }
        if !replies.is_empty() {
            call.shard.reply(call.connection, &Message::text(replies.join("\n")));
        }
        if let Some(reason) = close {
            call.shard.close(call.connection, &reason);
        }
        rest
    }

    /// Carries out one command; gives its reply, if it wants one.
    fn carry_out(&mut self, call: &Call<'_>, line: &str) -> Result<Option<Reply>, CloseReason> {
        let command = centrifuge::parse(line).map_err(|_| CloseReason::BAD_REQUEST)?;
        let (id, request) = match command {
            // Any frame is a sign of life, which the reader has noted.
            Command::Pong | Command::Send(_) if self.who.is_some() => return Ok(None),
            Command::Request(id, request) => (id, request),
            Command::Pong | Command::Send(_) => return Err(CloseReason::BAD_REQUEST),
        };
        let is_connect = matches!(request, Request::Connect(_));
        if is_connect == self.who.is_some() {
            return Err(CloseReason::BAD_REQUEST);
        }
        let result = match request {
            Request::Connect(connect) => self.connect(call, &connect).map(|r| ("connect", r)),
            Request::Subscribe(subscribe) => {
                self.subscribe(call, &subscribe).map(|r| ("subscribe", r))
            }
            Request::Unsubscribe(of) => call.unsubscribe(&of.channel).map(|r| ("unsubscribe", r)),
            Request::Publish(publish) => self.publish(call, &publish).map(|r| ("publish", r)),
            Request::History(history) => call.history(&history).map(|r| ("history", r)),
            Request::Refresh(refresh) => self.refresh(call, &refresh).map(|r| ("refresh", r)),
            Request::Presence(of) => call.presence(&of.channel).map(|r| ("presence", r)),
            Request::PresenceStats(of) => {
                call.presence_stats(&of.channel).map(|r| ("presence_stats", r))
            }
            Request::Rpc(_) | Request::SubRefresh(_) => Err(Error::NOT_AVAILABLE.into()),
        };
        match result {
            Ok((method, result)) => Ok(Some(Reply::Text(centrifuge::reply(id, method, &result)))),
            Err(Refusal::Error(error)) if error == Error::TOO_MANY_REQUESTS => {
                Ok(Some(Reply::Overloaded(centrifuge::error(id, error))))
            }
            Err(Refusal::Error(error)) => Ok(Some(Reply::Text(centrifuge::error(id, error)))),
            Err(Refusal::Close(reason)) => Err(reason),
        }
    }

    fn connect(
        &mut self,
        call: &Call<'_>,
        connect: &centrifuge::Connect<'_>,
    ) -> Result<String, Refusal> {
        let hub = &call.shard.hub;
        let grant = hub.verifier.connection(&connect.token, SystemTime::now());
        let ConnectionGrant { user, expires, info, subs } = match grant {
            Ok(grant) => grant,
            Err(TokenError::Expired) => return Err(Error::TOKEN_EXPIRED.into()),
            Err(error) => {
                hub.stats.fail_handshake(error.label());
                return Err(CloseReason::INVALID_TOKEN.into());
            }
        };
        if let Some(user) = &user {
            call.connection.identify(Identity::new(user.clone()), hub.ring.position());
            call.shard.admit(call.connection);
        }
        call.connection.life.stale_at.set(0);
        self.who = Some(Who { user, info });
        let lease = Lease::new(call.connection, expires);
        let subs = self.subscribe_all(call, &connect.subs, subs)?;
        let result = ConnectResult {
            client: &self.id,
            version: VERSION,
            lease,
            subs,
            ping: hub.config.heartbeat.interval.as_secs().max(1),
            pong: true,
        };
        Ok(json::encode(&result))
    }

    /// Subscribes to what its token names, from where it says that it was.
    fn subscribe_all(
        &self,
        call: &Call<'_>,
        were: &BTreeMap<Cow<'_, str>, centrifuge::Subscribe<'_>>,
        subs: BTreeMap<String, SubscriptionOptions>,
    ) -> Result<BTreeMap<String, Box<RawValue>>, Refusal> {
        let mut results = BTreeMap::new();
        for (name, options) in subs {
            let namespace = call.namespace(&name)?;
            let admission = self.admission(namespace, options);
            let result = call.enter(&name, namespace, were.get(&*name), admission)?;
            results.insert(name, RawValue::from_string(result).map_err(|_| Error::INTERNAL)?);
        }
        Ok(results)
    }

    fn refresh(
        &self,
        call: &Call<'_>,
        refresh: &centrifuge::Refresh<'_>,
    ) -> Result<String, Refusal> {
        let who = self.who.as_ref().ok_or(CloseReason::BAD_REQUEST)?;
        let verifier = &call.shard.hub.verifier;
        let expires = match verifier.connection(&refresh.token, SystemTime::now()) {
            Ok(grant) if grant.user == who.user => grant.expires,
            Err(TokenError::Expired) => return Err(CloseReason::EXPIRED.into()),
            Ok(_) | Err(_) => return Err(CloseReason::INVALID_TOKEN.into()),
        };
        let lease = Lease::new(call.connection, expires);
        Ok(json::encode(&RefreshResult { client: &self.id, version: VERSION, lease }))
    }

    fn subscribe(
        &self,
        call: &Call<'_>,
        subscribe: &centrifuge::Subscribe<'_>,
    ) -> Result<String, Refusal> {
        let name = &*subscribe.channel;
        let namespace = call.namespace(name)?;
        if call.connection.subscriptions.borrow().contains_key(name) {
            return Err(Error::ALREADY_SUBSCRIBED.into());
        }
        let options = self.judge(call, namespace, subscribe)?;
        let admission = self.admission(namespace, options);
        call.enter(name, namespace, Some(subscribe), admission)
    }

    fn admission(&self, namespace: &Namespace, options: SubscriptionOptions) -> Admission {
        let may_publish = match namespace.publish {
            Publish::Nobody => false,
            Publish::Subscribers => true,
            Publish::Token => options.allow.iter().any(|what| what == "pub"),
        };
        Admission { client: self.id.clone(), info: self.info(options.info), may_publish }
    }

    /// What its token, or the namespace, lets it do.
    fn judge(
        &self,
        call: &Call<'_>,
        namespace: &Namespace,
        subscribe: &centrifuge::Subscribe<'_>,
    ) -> Result<SubscriptionOptions, Refusal> {
        let who = self.who.as_ref().ok_or(CloseReason::BAD_REQUEST)?;
        let mut options = SubscriptionOptions::default();
        if !subscribe.token.is_empty() {
            let verifier = &call.shard.hub.verifier;
            match verifier.subscription(&subscribe.token, SystemTime::now()) {
                Ok(grant) if grant.channel == subscribe.channel && grant.user == who.user => {
                    options = grant.options;
                }
                Err(TokenError::Expired) => return Err(Error::TOKEN_EXPIRED.into()),
                Ok(_) | Err(_) => return Err(Error::PERMISSION_DENIED.into()),
            }
        } else {
            let is_named = || {
                let users = subscribe.channel.rsplit_once('#').map_or("", |(_, users)| users);
                let user = who.user.as_ref().map(ToString::to_string).unwrap_or_default();
                !user.is_empty() && users.split(',').any(|named| named == user)
            };
            let may_subscribe = match namespace.subscribe {
                Subscribe::Anyone => who.user.is_some(),
                Subscribe::Token => false,
                Subscribe::Named => is_named(),
            };
            if !may_subscribe {
                return Err(Error::PERMISSION_DENIED.into());
            }
        }
        Ok(options)
    }

    fn publish(
        &self,
        call: &Call<'_>,
        publish: &centrifuge::Publish<'_>,
    ) -> Result<String, Refusal> {
        let data = publish.data.ok_or(Error::BAD_REQUEST)?;
        let subscriptions = call.connection.subscriptions.borrow();
        call.namespace(&publish.channel)?;
        let subscription = subscriptions.get(&*publish.channel);
        if !subscription.is_some_and(|subscription| subscription.may_publish) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        let info = self.info(subscription.and_then(|subscription| subscription.info.clone()));
        let data = data.get().to_owned().into();
        let published =
            call.shard.hub.post(&publish.channel, data, Some(Arc::new(info)), Some(call.share));
        published.map(|_| "{}".to_owned()).map_err(|error| Refusal::Error(error.into()))
    }
}

impl Client {
    /// What others see of it on a channel.
    fn info(&self, chan_info: Option<Box<RawValue>>) -> ClientInfo {
        let who = self.who.as_ref();
        let user = who.and_then(|who| who.user.as_ref());
        ClientInfo {
            user: user.map(ToString::to_string).unwrap_or_default(),
            client: self.id.to_string(),
            conn_info: who.and_then(|who| who.info.clone()),
            chan_info,
        }
    }
}

/// As what someone subscribes.
struct Admission {
    client: Arc<str>,
    info: ClientInfo,
    may_publish: bool,
}

/// Where a command is carried out.
pub(crate) struct Call<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) connection: &'a Rc<Connection>,
    /// What the connection may hold of the ring.
    pub(crate) share: &'a Arc<Share>,
}

impl Call<'_> {
    fn namespace(&self, channel: &str) -> Result<&Namespace, Error> {
        self.shard.hub.config.namespace(channel).ok_or(Error::UNKNOWN_CHANNEL)
    }

    /// Subscribes, in one step with the reply as far as the shard's pump is concerned.
    fn enter(
        &self,
        name: &str,
        namespace: &Namespace,
        asked: Option<&centrifuge::Subscribe<'_>>,
        admission: Admission,
    ) -> Result<String, Refusal> {
        let asked = asked.filter(|asked| asked.recover && namespace.recovery != Recovery::Off);
        let recover =
            asked.map(|asked| Position { offset: asked.offset, epoch: Arc::from(&*asked.epoch) });
        let Admission { client, info, may_publish } = admission;
        let chan_info = info.chan_info.clone();
        let is_present = namespace.presence == Switch::On;
        let window = namespace.window();
        let entered = self.shard.hub.channels.subscribe_with(name, window, |channel, state| {
            let position = state.history.position();
            let recovered = recover.as_ref().map(|from| match namespace.recovery {
                Recovery::Stream => {
                    state.history.recover(from, RECOVERED_MAX).map(|all| all.cloned().collect())
                }
                _ => Ok(state.history.latest().cloned().into_iter().collect()),
            });
            if is_present {
                state.enter(&client, Arc::new(info));
            }
            (channel.clone(), state.sequence(), position, recovered)
        });
        let (channel, since, position, recovered): (_, _, _, Option<Result<Vec<_>, _>>) =
            entered.map_err(|TooManyChannels| Error::LIMIT_EXCEEDED)?;
        let slot = self.shard.subscribers.insert(channel.id, self.connection, since);
        let subscription = Subscription {
            channel: channel.clone(),
            slot,
            client: is_present.then_some(client),
            info: chan_info,
            may_publish,
        };
        self.connection.subscriptions.borrow_mut().insert(channel.name.clone(), subscription);
        let is_recoverable = window.is_open() && namespace.recovery != Recovery::Off;
        let mut result = String::from("{");
        let mut field = |text: &str| {
            if result.len() > 1 {
                result.push(',');
            }
            result.push_str(text);
        };
        if is_recoverable {
            field(r#""recoverable":true,"positioned":true"#);
            field(&format!(r#""epoch":"{}""#, position.epoch));
            if position.offset > 0 {
                field(&format!(r#""offset":{}"#, position.offset));
            }
        }
        match recovered {
            None => {}
            Some(Err(_)) => field(r#""was_recovering":true"#),
            Some(Ok(publications)) => {
                field(r#""was_recovering":true,"recovered":true"#);
                let mut list = String::from(r#""publications":["#);
                for (i, publication) in publications.iter().enumerate() {
                    if i > 0 {
                        list.push(',');
                    }
                    centrifuge::write_publication(&mut list, publication);
                }
                list.push(']');
                field(&list);
            }
        }
        result.push('}');
        Ok(result)
    }

    fn unsubscribe(&self, channel: &str) -> Result<String, Refusal> {
        let subscription = self.connection.subscriptions.borrow_mut().remove(channel);
        if let Some(subscription) = subscription {
            self.shard.leave(&subscription);
        }
        Ok("{}".to_owned())
    }

    fn presence(&self, channel: &str) -> Result<String, Refusal> {
        self.may_ask_who(channel)?;
        let present = self.shard.hub.channels.with(channel, |_, state| {
            let present = state
                .present()
                .map(|info| format!("{}:{}", json::encode(&info.client), json::encode(&**info)));
            present.collect::<Vec<_>>().join(",")
        });
        Ok(format!(r#"{{"presence":{{{}}}}}"#, present.unwrap_or_default()))
    }

    fn presence_stats(&self, channel: &str) -> Result<String, Refusal> {
        self.may_ask_who(channel)?;
        let counts = self
            .shard
            .hub
            .channels
            .with(channel, |_, state| (state.present().len(), state.users()));
        let (clients, users) = counts.unwrap_or_default();
        Ok(format!(r#"{{"num_clients":{clients},"num_users":{users}}}"#))
    }

    /// Only subscribers may, and where presence is on.
    fn may_ask_who(&self, channel: &str) -> Result<(), Refusal> {
        if self.namespace(channel)?.presence == Switch::Off {
            return Err(Error::NOT_AVAILABLE.into());
        }
        if !self.connection.subscriptions.borrow().contains_key(channel) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        Ok(())
    }

    fn history(&self, history: &centrifuge::History<'_>) -> Result<String, Refusal> {
        let namespace = self.namespace(&history.channel)?;
        if !namespace.window().is_open() {
            return Err(Error::NOT_AVAILABLE.into());
        }
        if !self.connection.subscriptions.borrow().contains_key(&*history.channel) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        let since = history
            .since
            .as_ref()
            .map(|since| Position { offset: since.offset, epoch: Arc::from(&*since.epoch) });
        let limit = usize::try_from(history.limit).unwrap_or(RECOVERED_MAX).min(RECOVERED_MAX);
        let page = Page { limit, since, reverse: history.reverse };
        let read = self.shard.hub.channels.with(&history.channel, |_, state| {
            (state.history.page(&page), state.history.position())
        });
        let Some((publications, position)) = read else { return Ok("{}".to_owned()) };
        let publications = publications.map_err(|_| Error::UNRECOVERABLE_POSITION)?;
        let mut result = String::from(r#"{"publications":["#);
        for (i, publication) in publications.iter().enumerate() {
            if i > 0 {
                result.push(',');
            }
            centrifuge::write_publication(&mut result, publication);
        }
        let Position { offset, epoch } = position;
        result.push_str(&format!(r#"],"epoch":"{epoch}","offset":{offset}}}"#));
        Ok(result)
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Overloaded => Self::TOO_MANY_REQUESTS,
            PublishError::TooLarge { .. } => Self::LIMIT_EXCEEDED,
            PublishError::Closed => Self::INTERNAL,
        }
    }
}

#[derive(Serialize)]
struct ConnectResult<'a> {
    client: &'a str,
    version: &'static str,
    #[serde(flatten)]
    lease: Lease,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subs: BTreeMap<String, Box<RawValue>>,
    ping: u64,
    pong: bool,
}

#[derive(Serialize)]
struct RefreshResult<'a> {
    client: &'a str,
    version: &'static str,
    #[serde(flatten)]
    lease: Lease,
}

/// How long a token lets its connection live.
#[derive(Serialize)]
struct Lease {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expires: bool,
    /// Seconds, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
}

impl Lease {
    /// Has a connection close some time after its token ends, unless that is refreshed.
    fn new(connection: &Connection, expires: Option<SystemTime>) -> Self {
        connection.life.expires.set(expires.map(|expires| expires + REFRESH_GRACE));
        let ttl = expires.map(|expires| {
            expires.duration_since(SystemTime::now()).map_or(1, |left| left.as_secs().max(1))
        });
        Self { expires: ttl.is_some(), ttl }
    }
}

/// What clients are told of the server.
const VERSION: &str = concat!("fanfare ", env!("CARGO_PKG_VERSION"));

/// How long after its end a token may still be refreshed: as long as Centrifugo waits.
const REFRESH_GRACE: Duration = Duration::from_secs(25);

/// Publications of one recovery or page at most.
const RECOVERED_MAX: usize = 300;
