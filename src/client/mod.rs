//! Peers that speak the Centrifuge protocol: the commands they give, carried out.

mod ask;
mod connect;
mod read;
mod subscribe;

pub(crate) use connect::{REFRESH_GRACE, seconds_to};

use std::fmt;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::channel::history::Position;
use crate::close::CloseReason;
use crate::config::Namespace;
use crate::connection::Connection;
use crate::error::PublishError;
use crate::hook::{Act, Answer, Decision};
use crate::hub::publish::Publish;
use crate::message::Message;
use crate::protocol::centrifuge::{self, ClientInfo, Command, Denial, Error, Request};
use crate::receipt::Receipt;
use crate::shard::Shard;
use crate::subscription::Who;
use crate::user::UserId;

/// Where commands are carried out.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) connection: &'a Rc<Connection>,
    /// What names the connection to others.
    pub(crate) client: &'a Arc<str>,
    pub(crate) given: Given,
}

/// What the first command was waiting for, and has been given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// What the application said to it.
    pub(crate) answer: Option<Answer>,
    /// What became of its publish.
    pub(crate) published: Option<Result<(), PublishError>>,
    /// Since when it is waited for that its channel has what its stream has.
    pub(crate) since: Option<Instant>,
    /// Whether its user is held: what is sent to it would be heard.
    pub(crate) is_held: bool,
    /// Who is on its channel, on all nodes.
    pub(crate) present: Option<Result<Vec<Arc<ClientInfo>>, PublishError>>,
    /// How many connections and users that are.
    pub(crate) counts: Option<Result<(usize, usize), PublishError>>,
}

/// What a frame of commands came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The commands that must wait, if some must.
    pub(crate) waiting: Option<Waiting>,
    /// Whether a command was refused by its sender's fault.
    pub(crate) is_faulty: bool,
}

/// Commands that must wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What the first of them lacks.
    pub(crate) lack: Lack,
    /// What it was given before.
    pub(crate) given: Given,
    pub(crate) commands: String,
}

/// What a command lacks, so that it is tried again later.
pub(crate) enum Lack {
    /// The application's answer.
    Answer(Decision),
    /// What its channel's stream has, with the position that the peer has seen.
    Channel(String, Option<Position>),
    /// How many are on its channel, on all nodes.
    Counts(String),
    /// Room in its connection's outbox for what it may answer.
    Outbox,
    /// Who is on its channel, on all nodes.
    Present(String),
    /// The broker's answer to its publish.
    Receipt(Receipt<()>),
    /// Room in the ring for what it publishes.
    Ring,
    /// That its user is held: what is sent to it would not be heard yet.
    User(UserId),
}

impl fmt::Debug for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer(_) => "Answer",
            Self::Channel(..) => "Channel",
            Self::Outbox => "Outbox",
            Self::Counts(_) => "Counts",
            Self::Present(_) => "Present",
            Self::Receipt(_) => "Receipt",
            Self::User(_) => "User",
            Self::Ring => "Ring",
        })
    }
}

/// What becomes of a command.
enum Turn {
    Close(CloseReason),
    /// It is answered, or needs no answer; `is_faulty` if it was refused by its sender's fault.
    Reply {
        reply: String,
        is_faulty: bool,
    },
    Wait(Lack),
}

/// Why a command has no result.
enum Refusal {
    Close(CloseReason),
    /// The application says so.
    Denied(Denial),
    Error(Error),
    /// It must wait.
    Lacks(Lack),
}

impl Call<'_> {
    /// Carries out the commands of one frame; what is to be answered goes out as one frame too. At
    /// one that lacks something it stops, and gives back the commands from there on. With
    /// `is_last_try` a publish that lacks room in the ring is refused instead.
    pub(crate) fn receive(mut self, frame: &str, mut is_last_try: bool) -> Outcome {
        let (mut outcome, mut replies) = (Outcome::default(), String::new());
        let mut lines = centrifuge::lines(frame);
        while let Some(line) = lines.next() {
            match self.turn(line, replies.len(), is_last_try) {
                Turn::Reply { reply, is_faulty } => {
                    outcome.is_faulty |= is_faulty;
                    push_line(&mut replies, &reply);
                }
                Turn::Wait(lack) => {
                    let rest: Vec<_> = [line].into_iter().chain(lines).collect();
                    let (given, commands) = (mem::take(&mut self.given), rest.join("\n"));
                    outcome.waiting = Some(Waiting { lack, given, commands });
                    break;
                }
                Turn::Close(reason) => {
                    self.answer(replies);
                    self.shard.close(self.connection, &reason);
                    return outcome;
                }
            }
            self.given = Given::default();
            is_last_try = false;
        }
        self.answer(replies);
        outcome
    }

    /// What becomes of one command, when so many bytes of replies wait already.
    fn turn(&self, line: &str, replies: usize, is_last_try: bool) -> Turn {
        if self.is_outbox_full(replies) {
            return Turn::Wait(Lack::Outbox);
        }
        let reply = |reply, is_faulty| Turn::Reply { reply, is_faulty };
        match self.carry_out(line) {
            Ok(result) => reply(result, false),
            Err((_, Refusal::Close(reason))) => Turn::Close(reason),
            Err((id, Refusal::Denied(denial))) => reply(centrifuge::error(id, &denial), false),
            Err((_, Refusal::Error(Error::TOO_MANY_REQUESTS))) if !is_last_try => {
                Turn::Wait(Lack::Ring)
            }
            Err((id, Refusal::Error(it))) => reply(centrifuge::error(id, &it), it.is_of_sender()),
            Err((id, Refusal::Lacks(Lack::Channel(..)))) if is_last_try => {
                reply(centrifuge::error(id, &Error::INTERNAL), false)
            }
            Err((_, Refusal::Lacks(lack))) => Turn::Wait(lack),
        }
    }

    /// Whether what waits for the peer, with so much more, must go out before anything else is
    /// answered.
    fn is_outbox_full(&self, replies: usize) -> bool {
        let held = self.connection.outbox.borrow().held();
        held + replies > self.shard.hub.config.limits.reply_bytes()
    }

    fn answer(&self, replies: String) {
        if !replies.is_empty() {
            self.shard.reply(self.connection, &Message::text(replies));
            // An answer may be far larger than what asks for it, and many may ask at once.
            self.shard.relieve();
        }
    }

    /// Carries out one command; gives its reply, which is empty if it wants none.
    fn carry_out(&self, line: &str) -> Result<String, (u32, Refusal)> {
        let fail = |reason: CloseReason| (0, Refusal::Close(reason));
        let command = centrifuge::parse(line).map_err(|_| fail(CloseReason::BAD_REQUEST))?;
        let who = self.connection.who();
        let (id, request) = match (command, who) {
            (Command::Pong, Some(_)) if self.connection.life.awaits_pong.take() => {
                return Ok(String::new());
            }
            (Command::Send(message), Some(who)) => {
                return self.message(who, &message).map_err(|refusal| (0, refusal));
            }
            (Command::Request(id, request), _) => (id, request),
            (Command::Pong | Command::Send(_), _) => return Err(fail(CloseReason::BAD_REQUEST)),
        };
        let result = match (request, who) {
            (Request::Connect(connect), None) => self.connect(&connect).map(|r| ("connect", r)),
            (Request::Connect(_), Some(_)) | (_, None) => Err(CloseReason::BAD_REQUEST.into()),
            (request, Some(who)) => self.request(who, request),
        };
        match result {
            Ok((method, result)) => Ok(centrifuge::reply(id, method, &result)),
            Err(refusal) => Err((id, refusal)),
        }
    }

    /// Carries out what a connected peer requests; gives the name of its result, and that.
    fn request(&self, who: &Who, request: Request<'_>) -> Result<(&'static str, String), Refusal> {
        match request {
            Request::Subscribe(it) => self.subscribe(who, &it).map(|r| ("subscribe", r)),
            Request::Unsubscribe(of) => self.unsubscribe(&of.channel).map(|r| ("unsubscribe", r)),
            Request::SubRefresh(it) => self.sub_refresh(who, &it).map(|r| ("sub_refresh", r)),
            Request::Publish(it) => self.publish(who, &it).map(|r| ("publish", r)),
            Request::History(it) => self.history(&it).map(|r| ("history", r)),
            Request::Refresh(it) => self.refresh(who, &it).map(|r| ("refresh", r)),
            Request::Presence(of) => self.presence(&of.channel).map(|r| ("presence", r)),
            Request::PresenceStats(of) => {
                self.presence_stats(&of.channel).map(|r| ("presence_stats", r))
            }
            Request::Rpc(it) => self.rpc(who, &it).map(|r| ("rpc", r)),
            Request::Connect(_) => Err(CloseReason::BAD_REQUEST.into()),
        }
    }

    fn publish(&self, who: &Who, publish: &centrifuge::Publish<'_>) -> Result<String, Refusal> {
        if let Some(published) = self.given.published {
            return Ok(published.map(|()| "{}".to_owned())?);
        }
        let data = publish.data.ok_or(Error::BAD_REQUEST)?;
        let namespace = self.namespace(&publish.channel)?;
        // Looked at first, as what was agreed to is not to be refused.
        if data.get().len() > namespace.max_bytes(&self.shard.hub.config.limits) {
            return Err(Error::LIMIT_EXCEEDED.into());
        }
        let info = {
            let subscriptions = self.connection.subscriptions.borrow();
            let subscription = subscriptions.get(&*publish.channel);
            let subscription = subscription.filter(|subscription| subscription.terms.may_publish);
            who.info(subscription.ok_or(Error::PERMISSION_DENIED)?.terms.info.clone())
        };
        let act = Act::Publish { channel: &publish.channel, data };
        let rewritten = self.consent(who.user.as_ref(), act)?.and_then(|consent| consent.data);
        let data = rewritten.as_deref().unwrap_or(data);
        let publish = Publish {
            info: Some(Arc::new(info)),
            share: Some(self.connection.share()),
            ..Publish::new(&*publish.channel, data.get().to_owned())
        };
        match self.shard.hub.post(publish).now() {
            Ok(published) => Ok(published.map(|_| "{}".to_owned())?),
            Err(receipt) => Err(Lack::Receipt(receipt.done()).into()),
        }
    }

    fn namespace(&self, channel: &str) -> Result<&Namespace, Error> {
        self.shard.hub.namespace(channel)
    }
}

/// Appends a reply as a line of its own.
fn push_line(lines: &mut String, line: &str) {
    if !lines.is_empty() && !line.is_empty() {
        lines.push('\n');
    }
    lines.push_str(line);
}

impl From<Lack> for Refusal {
    fn from(lack: Lack) -> Self {
        Self::Lacks(lack)
    }
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

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Self::Error(match error {
            PublishError::Overloaded => Error::TOO_MANY_REQUESTS,
            PublishError::TooLarge { .. } | PublishError::TooManyChannels => Error::LIMIT_EXCEEDED,
            PublishError::UnknownChannel => Error::UNKNOWN_CHANNEL,
            PublishError::NotJson => Error::BAD_REQUEST,
            PublishError::Closed | PublishError::Unavailable | PublishError::Uncertain => {
                Error::INTERNAL
            }
        })
    }
}
