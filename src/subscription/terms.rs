//! Who subscribes, and on what terms.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::RawValue;

use crate::auth::grant::SubscriptionOptions;
use crate::config::{Namespace, Publish, Subscribe, Switch};
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

/// Whose a connection is, as channels see it.
#[derive(Debug)]
pub(crate) struct Who {
    /// What names the connection to others.
    pub(crate) client: Arc<str>,
    /// `None` is an anonymous user.
    pub(crate) user: Option<UserId>,
    /// What others see of it on every channel.
    pub(crate) info: Option<Box<RawValue>>,
    /// When the application has it end, whatever token it refreshes.
    pub(crate) ends: Option<SystemTime>,
}

impl Who {
    /// Whether a namespace lets it subscribe to one of its channels without a token for that.
    pub(crate) fn may_subscribe(&self, channel: &str, namespace: &Namespace) -> bool {
        match namespace.subscribe {
            Subscribe::Anyone if channel.contains('#') => self.is_named_by(channel),
            Subscribe::Anyone => self.user.is_some() || namespace.anonymous == Switch::On,
            Subscribe::Token => false,
            Subscribe::Named => self.is_named_by(channel),
        }
    }

    /// What others see of it on a channel.
    pub(crate) fn info(&self, chan_info: Option<Box<RawValue>>) -> ClientInfo {
        ClientInfo {
            user: self.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            client: self.client.to_string(),
            conn_info: self.info.clone(),
            chan_info,
        }
    }

    /// Whether a channel's name lists its user: `news#41,42`.
    fn is_named_by(&self, channel: &str) -> bool {
        let users = channel.rsplit_once('#').map_or("", |(_, users)| users);
        let is_user = |user: &String| users.split(',').any(|named| named == user);
        self.user.as_ref().map(ToString::to_string).as_ref().is_some_and(is_user)
    }
}

/// On what terms someone is subscribed.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// What others see of the connection on that channel.
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) may_publish: bool,
    /// Whether the server subscribed it, rather than its peer.
    pub(crate) is_server_side: bool,
    /// Whether it is told who joins and leaves, where the namespace has that.
    pub(crate) hears_join_leave: bool,
    /// When it must end, if ever.
    pub(crate) expires: Option<SystemTime>,
    /// Whether no token makes that later, as the application has a say in it.
    pub(crate) is_bound: bool,
}

impl Terms {
    /// The terms of a subscription that the server makes.
    pub(crate) fn of_server(
        who: &Who,
        namespace: &Namespace,
        options: &SubscriptionOptions,
    ) -> Self {
        Self {
            info: options.info.clone(),
            may_publish: match namespace.publish {
                Publish::Nobody => false,
                Publish::Subscribers => who.user.is_some(),
                Publish::Token => options.allow.iter().any(|what| what == "pub"),
            },
            is_server_side: true,
            hears_join_leave: true,
            expires: None,
            is_bound: false,
        }
    }
}
