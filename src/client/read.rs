//! `history`, `presence` and `presence_stats`: what subscribers may ask of their channels.

use std::sync::Arc;

use super::{Call, Lack, Refusal};
use crate::channel::State;
use crate::channel::history::{Page, Position};
use crate::config::Switch;
use crate::protocol::centrifuge::{self, ClientInfo, Error};
use crate::ring::ENTRY_BYTES;
use crate::subscription::RECOVERED_MAX;

impl Call<'_> {
    pub(super) fn history(&self, history: &centrifuge::History<'_>) -> Result<String, Refusal> {
        if !self.namespace(&history.channel)?.window().is_open() {
            return Err(Error::NOT_AVAILABLE.into());
        }
        self.must_be_subscribed(&history.channel)?;
        let since = history.since.as_ref();
        let since =
            since.map(|since| Position { offset: since.offset, epoch: Arc::from(&*since.epoch) });
        let limit = usize::try_from(history.limit).unwrap_or(RECOVERED_MAX).min(RECOVERED_MAX);
        let max_bytes = self.shard.hub.config.limits.reply_bytes();
        let page = Page { limit, max_bytes, since, reverse: history.reverse };
        let read = self.shard.hub.channels.with(&history.channel, |_, state| {
            (state.history.page(&page), state.history.position())
        });
        let (publications, position) = read.ok_or(Error::INTERNAL)?;
        let publications = publications.map_err(|_| Error::UNRECOVERABLE_POSITION)?;
        Ok(centrifuge::history_result(&publications, &position))
    }

    pub(super) fn presence(&self, channel: &str) -> Result<String, Refusal> {
        self.may_ask_who(channel)?;
        let present = self.present(channel)?;
        let bytes: usize = present.iter().map(|info| info.size() + ENTRY_BYTES).sum();
        if bytes > self.shard.hub.config.limits.reply_bytes() {
            return Err(Error::LIMIT_EXCEEDED.into());
        }
        Ok(centrifuge::presence_result(present.iter()))
    }

    pub(super) fn presence_stats(&self, channel: &str) -> Result<String, Refusal> {
        self.may_ask_who(channel)?;
        let counts = match self.given.counts {
            Some(counts) => counts?,
            None if self.shard.hub.broker.is_some() => {
                return Err(Lack::Counts(channel.to_owned()).into());
            }
            None => {
                let counts = self.shard.hub.channels.with(channel, |_, state| state.counts());
                counts.unwrap_or_default()
            }
        };
        Ok(centrifuge::presence_stats_result(counts))
    }

    /// Who is on a channel, on all nodes.
    fn present(&self, channel: &str) -> Result<Vec<Arc<ClientInfo>>, Refusal> {
        match &self.given.present {
            Some(present) => return Ok(present.clone()?),
            None if self.shard.hub.broker.is_some() => {
                return Err(Lack::Present(channel.to_owned()).into());
            }
            None => {}
        }
        // Others need the lock, so the answer is made after it.
        let present = |state: &State| state.present().cloned().collect::<Vec<_>>();
        let present = self.shard.hub.channels.with(channel, |_, state| present(state));
        Ok(present.ok_or(Error::INTERNAL)?)
    }

    fn may_ask_who(&self, channel: &str) -> Result<(), Refusal> {
        if self.namespace(channel)?.presence == Switch::Off {
            return Err(Error::NOT_AVAILABLE.into());
        }
        self.must_be_subscribed(channel)
    }

    fn must_be_subscribed(&self, channel: &str) -> Result<(), Refusal> {
        let is_subscribed = self.connection.subscriptions.borrow().contains_key(channel);
        if is_subscribed { Ok(()) } else { Err(Error::PERMISSION_DENIED.into()) }
    }
}
