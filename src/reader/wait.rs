//! What a reader does while something lacks: it reads no further, and tries again.

use std::pin::pin;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Dialog, Speaker};
use crate::client::{self, Call, Given, Lack};
use crate::config::Limits;
use crate::error::PublishError;
use crate::hook::{Act, Answer, Consent, Decision, Question, Refusal};
use crate::message::Message;
use crate::protocol::centrifuge::Error;
use crate::protocol::chat;
use crate::ring::Audience;

/// What waits.
pub(super) struct Waiting {
    lack: Lack,
    what: What,
}

/// What is done once nothing lacks.
enum What {
    /// Commands, and what the first of them was given before.
    Commands(Box<Given>, String),
    /// A message to the chat.
    Message(Message),
}

impl What {
    fn len(&self) -> usize {
        match self {
            Self::Commands(_, commands) => commands.len(),
            Self::Message(message) => message.len(),
        }
    }
}

impl Dialog {
    /// Has a client's commands carried out; gives back what waits. What is given is for the first of
    /// them.
    pub(super) fn command(
        &mut self,
        given: Given,
        frame: &str,
        is_last_try: bool,
    ) -> Option<Waiting> {
        let Speaker::Client(client) = &self.speaker else { return None };
        let call = Call { shard: &self.shard, connection: &self.connection, client, given };
        let outcome = call.receive(frame, is_last_try);
        if outcome.is_faulty {
            self.count_fault();
        }
        let client::Waiting { lack, given, commands } = outcome.waiting?;
        Some(Waiting { lack, what: What::Commands(Box::new(given), commands) })
    }

    /// Says something in the chat, if the application agrees; gives it back if it must wait.
    pub(super) fn say(&mut self, message: Message) -> Option<Waiting> {
        match self.ask(&message) {
            Some(decision) => {
                Some(Waiting { lack: Lack::Answer(decision), what: What::Message(message) })
            }
            None => self.publish(message),
        }
    }

    /// Reads no further until nothing lacks, or the connection closes.
    pub(super) async fn wait(&mut self, waiting: Waiting) {
        let connection = self.connection.clone();
        connection.life.is_paused.set(true);
        tokio::select! {
            biased;
            () = connection.closed() => return,
            () = self.get_on(waiting) => {}
        }
        connection.life.is_paused.set(false);
        connection.life.pinged.set(0);
    }

    /// Goes on whenever there is what was lacking. Room in the ring is waited for a time, then what
    /// waits is refused.
    async fn get_on(&mut self, waiting: Waiting) {
        let (connection, hub) = (self.connection.clone(), self.shard.hub.clone());
        let Limits { publish_wait, .. } = hub.config.limits;
        let mut patience = pin!(tokio::time::sleep(publish_wait));
        let mut freed = hub.room().freed();
        let mut waiting = match waiting {
            // There may be room since it was lacking, and before that was listened for.
            Waiting { lack: Lack::Ring, what } => self.retry(what, false),
            waiting => Some(waiting),
        };
        let held = connection.life.partial_bytes.get();
        while let Some(Waiting { lack, what }) = waiting.take() {
            self.hold(held + what.len());
            // Only what the shard itself is waited for counts against its patience.
            let is_of_shard = matches!(lack, Lack::Outbox | Lack::Ring);
            waiting = match lack {
                Lack::Outbox => {
                    connection.outbox_below(hub.config.limits.reply_bytes()).await;
                    self.retry(what, false)
                }
                Lack::Ring => tokio::select! {
                    () = freed.wait() => self.retry(what, false),
                    () = &mut patience => {
                        hub.stats.refuse(PublishError::Overloaded);
                        self.retry(what, true)
                    }
                },
                lack => self.obtain(lack, what, held).await,
            };
            if !is_of_shard {
                patience.as_mut().reset(Instant::now() + publish_wait);
            }
        }
    }

    /// Goes on with what waits once the application or the broker has answered.
    async fn obtain(&mut self, lack: Lack, what: What, held: usize) -> Option<Waiting> {
        let hub = self.shard.hub.clone();
        match lack {
            Lack::Answer(decision) => {
                // What is asked is a copy of what waits.
                self.hold(held + 2 * what.len());
                let answer = hub.answer(decision).await;
                self.resume(what, answer)
            }
            Lack::Channel(channel, from) => {
                let since = Instant::now();
                if hub.followed(&channel, from.as_ref(), since.into_std()).await.is_err() {
                    return self.retry(what, true);
                }
                // Of several channels each is waited for, and all have been seen by the first time.
                self.give(what, |given| given.since = given.since.or(Some(since.into_std())))
            }
            Lack::Counts(channel) => {
                let counts = Some(hub.presence_counts(&channel).await);
                self.give(what, |given| given.counts = counts)
            }
            Lack::Present(channel) => {
                let present = Some(hub.present(&channel).await);
                self.give(what, |given| given.present = present)
            }
            Lack::Receipt(receipt) => {
                let published = receipt.await;
                self.conclude(what, published)
            }
            Lack::User(user) => {
                let _hold = hub.hold_user(&user).await;
                self.give(what, |given| given.is_held = true)
            }
            Lack::Outbox | Lack::Ring => self.retry(what, false),
        }
    }

    /// Has so many bytes count as held by the connection.
    fn hold(&self, bytes: usize) {
        self.shard.budget.add(bytes);
        self.shard.budget.subtract(self.connection.life.partial_bytes.replace(bytes));
    }

    /// Tries again what waited, and gives back what still does; at the last try it is refused.
    fn retry(&mut self, what: What, is_last_try: bool) -> Option<Waiting> {
        match what {
            What::Commands(given, commands) => self.command(*given, &commands, is_last_try),
            What::Message(_) if is_last_try => {
                self.refuse(&chat::overloaded());
                None
            }
            What::Message(message) => self.publish(message),
        }
    }

    /// Goes on with what the application was asked about.
    fn resume(&mut self, what: What, answer: Answer) -> Option<Waiting> {
        let message = match what {
            What::Commands(given, commands) => {
                let given = Given { answer: Some(answer), ..*given };
                return self.command(given, &commands, false);
            }
            What::Message(message) => message,
        };
        match answer {
            Ok(Some(Consent { data: Some(data), .. })) => self.rewrite(&data),
            Ok(_) => self.publish(message),
            Err(refusal) => {
                self.deny(&refusal);
                None
            }
        }
    }

    /// Gives the first of some commands what it was waiting for.
    fn give(&mut self, what: What, give: impl FnOnce(&mut Given)) -> Option<Waiting> {
        let What::Commands(mut given, commands) = what else { return None };
        give(&mut given);
        self.command(*given, &commands, false)
    }

    /// Goes on once the broker has answered to a publish.
    fn conclude(&mut self, what: What, published: Result<(), PublishError>) -> Option<Waiting> {
        match (what, published) {
            (What::Commands(given, commands), published) => {
                self.command(Given { published: Some(published), ..*given }, &commands, false)
            }
            (What::Message(_), Ok(()) | Err(PublishError::Closed)) => None,
            (What::Message(_), Err(error)) => {
                let reply = chat::denied(Error::INTERNAL.code, &error.to_string());
                self.shard.reply(&self.connection, &reply);
                None
            }
        }
    }

    /// Says in the chat what the application has made of a message.
    fn rewrite(&mut self, data: &RawValue) -> Option<Waiting> {
        let max = self.shard.hub.config.limits.message_bytes + chat::ENVELOPE_BYTES_MAX;
        if data.get().len() > max {
            let error = Error::LIMIT_EXCEEDED;
            self.shard.reply(&self.connection, &chat::denied(error.code, error.message));
            return None;
        }
        self.publish(Message::text(data.get()))
    }

    /// Tells a peer of the chat why its message did not go out.
    fn deny(&self, refusal: &Refusal) {
        let reply = match refusal {
            Refusal::Close(reason) => return self.close(reason),
            Refusal::Error { code, message, .. } => chat::denied(*code, message),
            Refusal::Failed(_) => chat::denied(Error::INTERNAL.code, Error::INTERNAL.message),
        };
        self.shard.reply(&self.connection, &reply);
    }

    /// Asks about what is to be said in the chat. What is no JSON is of an embedder's protocol, which
    /// has decided already.
    fn ask(&self, message: &Message) -> Option<Decision> {
        let application = self.shard.hub.application.as_ref()?;
        let data: &RawValue = serde_json::from_slice(message.payload()).ok()?;
        let user = self.connection.identity().map(|identity| &identity.user);
        let act = Act::Publish { channel: &self.shard.hub.chat, data };
        application.ask(&Question { client: "", user, act })
    }

    /// Publishes, or gives the message back without room.
    fn publish(&mut self, message: Message) -> Option<Waiting> {
        let told = self.shard.hub.tell(&message, Audience::Chat, Some(self.connection.share()));
        let lack = match told.now() {
            // Either passes: channels go with their last subscriber, or with what they remember.
            Ok(Err(PublishError::Overloaded | PublishError::TooManyChannels)) => Lack::Ring,
            // A hub that closes tells its peers by the close itself.
            Ok(_) => return None,
            Err(receipt) => Lack::Receipt(receipt.done()),
        };
        Some(Waiting { lack, what: What::Message(message) })
    }
}
