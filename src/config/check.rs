//! The one check of a configuration, wherever it came from.

use std::fmt;

use super::key::is_namespace_name;
use super::setting::NAMESPACE;
use super::value::format_size;
use super::{
    Anonymous, BrokerKind, Config, Namespace, Nats, Recovery, Redis, Setting, Switch, broker,
};
use crate::protocol::chat::ENVELOPE_BYTES_MAX;
use crate::ring::ENTRY_BYTES;

impl Config {
    /// Checks every bound, and those between settings. `Hub::start` does it too.
    ///
    /// # Errors
    ///
    /// All that is wrong, a line each.
    pub fn check(self) -> Result<Self, ConfigError> {
        let settings = self.settings();
        let out_of_bounds = settings.iter().filter(|setting| !setting.is_in_bounds(&self));
        let mut faults: Vec<_> = out_of_bounds.map(|setting| describe(setting, &self)).collect();
        let misnamed = self.namespaces.keys().filter(|name| !is_namespace_name(name));
        faults.extend(misnamed.map(|name| {
            format!("{NAMESPACE}.{name}: is no name for a namespace; use letters, digits, - and _")
        }));
        // Sums of values within their bounds do not overflow.
        if faults.is_empty() {
            faults.extend(self.small_sizes());
            faults.extend(self.disagreements());
        }
        if faults.is_empty() { Ok(self) } else { Err(ConfigError { faults }) }
    }

    /// What looks like a mistake but may be none.
    pub(super) fn doubts(&self) -> Vec<String> {
        let secret = self.auth.hmac_secret.as_ref();
        let weak = secret.is_some_and(|secret| secret.expose().len() < HASH_BYTES).then(|| {
            "auth.hmac_secret is under 32 bytes; RFC 7518 asks for as many as the hash has"
                .to_owned()
        });
        let vain = self.namespace_sections().filter(|(_, namespace)| {
            namespace.anonymous == Switch::On && self.auth.anonymous == Anonymous::Off
        });
        let vain = vain.map(|(section, _)| {
            format!("{section}.anonymous lets nobody in while auth.anonymous is off")
        });
        let mute = (!self.hook.calls.is_empty() && !self.hook.is_set())
            .then(|| "hook.calls asks and tells nobody while hook.url is not set".to_owned());
        let alone = self.broker.kind == BrokerKind::Local
            && (self.broker.redis.url != Redis::default().url
                || self.broker.nats.url != Nats::default().url);
        let alone = alone.then(|| {
            "the broker has a url, but this node is alone while broker.kind is local".to_owned()
        });
        weak.into_iter().chain(vain).chain(mute).chain(alone).collect()
    }

    /// Sizes that cannot hold what they must.
    fn small_sizes(&self) -> impl Iterator<Item = String> {
        let limits = &self.limits;
        let message = limits.message_bytes + ENVELOPE_BYTES_MAX + ENTRY_BYTES;
        let outboxes = self.server.shards * limits.outbox_bytes;
        let sizes = [
            ("limits.outbox_bytes", limits.outbox_bytes, 2 * message, "hold two messages"),
            (
                "limits.ring_bytes",
                limits.ring_bytes,
                4 * message,
                "hold four messages, as one connection gets a quarter",
            ),
            (
                "limits.request_bytes",
                limits.request_bytes,
                limits.message_bytes + 1,
                "hold a message and what is around it",
            ),
            (
                "limits.memory",
                limits.memory,
                limits.ring_bytes + outboxes,
                "hold limits.ring_bytes and one full limits.outbox_bytes a shard",
            ),
            ("limits.history_bytes", limits.history_bytes, message, "hold a message"),
            (
                "limits.broker_bytes",
                limits.broker_bytes,
                if self.broker.kind == BrokerKind::Local { 0 } else { 2 * message },
                "hold two messages",
            ),
        ];
        let too_small = sizes.into_iter().filter(|(_, size, least, _)| size < least);
        too_small.map(|(name, size, least, why)| {
            let (size, least) = (format_size(size), format_size(least));
            format!("{name}: {size} is too small; use at least {least}, to {why}")
        })
    }

    fn disagreements(&self) -> Vec<String> {
        let Self { auth, chat, drain, hook, limits, .. } = self;
        let mut faults = Vec::new();
        if drain.spread > drain.timeout / 2 {
            faults.push(
                "drain.spread: must not exceed half of drain.timeout, as peers need the rest"
                    .to_owned(),
            );
        }
        let personal = &auth.personal_namespace;
        if !personal.is_empty() && !self.namespaces.contains_key(personal) {
            faults.push(format!("auth.personal_namespace: {}", unknown(personal)));
        }
        if let Some((name, _)) = chat.channel.split_once(':')
            && !self.namespaces.contains_key(name)
        {
            faults.push(format!("chat.channel: {}", unknown(name)));
        }
        if self.broker.kind == BrokerKind::Nats && limits.channel_bytes > NATS_CHANNEL_BYTES {
            faults.push(format!(
                "limits.channel_bytes: over {NATS_CHANNEL_BYTES}, which NATS does not take; lower it"
            ));
        }
        if chat.channel.len() > limits.channel_bytes {
            faults.push("chat.channel: is longer than limits.channel_bytes; shorten it".to_owned());
        }
        faults.extend(hook.disagreements());
        for (section, namespace) in self.namespace_sections() {
            if namespace.recovery != Recovery::Off && namespace.history_size == 0 {
                faults.push(format!(
                    "{section}.recovery: there is no history to recover from; set \
                     {section}.history_size to 1 or more"
                ));
            }
            if namespace.max_bytes > limits.message_bytes {
                faults.push(format!(
                    "{section}.max_bytes: must not exceed limits.message_bytes; lower it, or use 0"
                ));
            }
        }
        faults
    }

    /// Every namespace, and what stands for none, with the section that it is.
    fn namespace_sections(&self) -> impl Iterator<Item = (String, &Namespace)> {
        let named = self.namespaces.iter();
        let named = named.map(|(name, namespace)| (format!("{NAMESPACE}.{name}"), namespace));
        std::iter::once(("channel".to_owned(), &self.channel)).chain(named)
    }
}

/// What is wrong with a configuration, a line each. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.faults.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

fn describe(setting: &Setting, config: &Config) -> String {
    let key = setting.key;
    let value = if key.is_secret() {
        "a value".to_owned()
    } else {
        broker::without_passwords(&setting.get(config))
    };
    format!("{}: {value} is not allowed; use {}", setting.name(), key.allowed())
}

fn unknown(namespace: &str) -> String {
    format!("there is no namespace {namespace}; add [{NAMESPACE}.{namespace}]")
}

/// Bytes of a channel's name that with others still fit the longest line that a server of NATS reads, 4 KiB,
/// where each may take three.
const NATS_CHANNEL_BYTES: usize = 1024;

/// Bytes of SHA-256, and so of the shortest key for it (RFC 7518 section 3.2).
const HASH_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Hook, HookCall, Secret};

    fn fault(set: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        set(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_in_order() {
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn each_fault_names_its_key_and_what_is_allowed() {
        let text = fault(|config| config.limits.inbox = 0);
        assert_eq!(text, "limits.inbox: 0 is not allowed; use a number from 1 to 1048576");
        let text = fault(|config| config.server.shards = 0);
        assert!(text.starts_with("server.shards: 0"), "{text}");
    }

    #[test]
    fn a_secret_is_not_told() {
        let text = fault(|config| config.api.key = Some(Secret::new("tiny")));
        assert_eq!(text, "api.key: a value is not allowed; use at least 16 bytes of text");
    }

    fn hook(unset: fn(&mut Hook)) -> Hook {
        let mut hook = Hook {
            url: "http://127.0.0.1:8000/hook".to_owned(),
            secret: Some(Secret::new("a secret of the test")),
            calls: vec![HookCall::Publish],
            ..Hook::default()
        };
        unset(&mut hook);
        hook
    }

    #[test]
    fn settings_must_agree_with_each_other() {
        for (set, key) in [
            ((|c| c.limits.outbox_bytes = 64 << 10) as fn(&mut Config), "limits.outbox_bytes"),
            (|c| c.limits.ring_bytes = 128 << 10, "limits.ring_bytes"),
            (|c| c.limits.request_bytes = 64 << 10, "limits.request_bytes"),
            (|c| c.server.shards = 1000, "limits.memory"),
            (|c| c.limits.history_bytes = 64 << 10, "limits.history_bytes"),
            (|c| c.drain.timeout = c.drain.spread / 2, "drain.spread"),
            (|c| c.auth.personal_namespace = "user".to_owned(), "auth.personal_namespace"),
            (|c| c.chat.channel = "live:chat".to_owned(), "chat.channel: there is no"),
            (|c| c.chat.channel = "c".repeat(256), "chat.channel: is longer"),
            (|c| c.channel.recovery = Recovery::Stream, "channel.recovery"),
            (|c| c.channel.max_bytes = 65 << 10, "channel.max_bytes"),
            (|c| c.hook = hook(|it| it.secret = None), "hook.secret"),
            (
                |c| (c.broker.kind, c.limits.channel_bytes) = (BrokerKind::Nats, 2000),
                "limits.channel_bytes: over 1024, which NATS does not take",
            ),
            (|c| c.hook = hook(|it| it.calls.clear()), "hook.calls"),
        ] {
            let text = fault(set);
            assert!(text.starts_with(key) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn each_namespace_is_checked_under_its_own_name() {
        let with = |name: &str, set: fn(&mut Namespace)| {
            fault(|config| set(config.namespaces.entry(name.to_owned()).or_default()))
        };
        assert_eq!(
            with("news", |it| it.recovery = Recovery::Cache),
            "namespace.news.recovery: there is no history to recover from; set \
             namespace.news.history_size to 1 or more"
        );
        let text = with("news", |it| it.history_size = 1_000_001);
        assert!(text.starts_with("namespace.news.history_size: 1000001 is not allowed"), "{text}");
        assert_eq!(
            with("a:b", |_| {}),
            "namespace.a:b: is no name for a namespace; use letters, digits, - and _"
        );
    }

    #[test]
    fn asymmetric_algorithms_are_refused() {
        let text = fault(|config| config.auth.algorithms = vec![jsonwebtoken::Algorithm::RS256]);
        assert!(text.contains("HS256"), "{text}");
    }
}
