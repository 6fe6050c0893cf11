//! The one check of a configuration, wherever it came from.

use std::fmt;

use super::value::format_size;
use super::{Config, Key, keys};
use crate::protocol::chat::ENVELOPE_BYTES_MAX;
use crate::ring::ENTRY_BYTES;

impl Config {
    /// Checks every bound, and those between settings. `Hub::start` does it too.
    ///
    /// # Errors
    ///
    /// All that is wrong, a line each.
    pub fn check(self) -> Result<Self, ConfigError> {
        let out_of_bounds = keys().iter().filter(|key| !key.is_in_bounds(&self));
        let mut faults: Vec<_> = out_of_bounds.map(|key| describe(key, &self)).collect();
        // Sums of values within their bounds do not overflow.
        if faults.is_empty() {
            faults.extend(self.disagreements());
        }
        if faults.is_empty() { Ok(self) } else { Err(ConfigError { faults }) }
    }

    fn disagreements(&self) -> impl Iterator<Item = String> {
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
        ];
        let too_small = sizes.into_iter().filter(|(_, size, least, _)| size < least);
        let too_small = too_small.map(|(name, size, least, why)| {
            let (size, least) = (format_size(size), format_size(least));
            format!("{name}: {size} is too small; use at least {least}, to {why}")
        });
        let overlong = self.drain.spread > self.drain.timeout / 2;
        let overlong = overlong.then(|| {
            "drain.spread: must not exceed half of drain.timeout, as peers need the rest".to_owned()
        });
        too_small.chain(overlong)
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

fn describe(key: &Key, config: &Config) -> String {
    let value = if key.is_secret() { "a value".to_owned() } else { key.get(config) };
    format!("{}: {value} is not allowed; use {}", key.name, key.allowed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

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

    #[test]
    fn settings_must_agree_with_each_other() {
        for (set, key) in [
            ((|c| c.limits.outbox_bytes = 64 << 10) as fn(&mut Config), "limits.outbox_bytes"),
            (|c| c.limits.ring_bytes = 128 << 10, "limits.ring_bytes"),
            (|c| c.limits.request_bytes = 64 << 10, "limits.request_bytes"),
            (|c| c.server.shards = 1000, "limits.memory"),
            (|c| c.drain.timeout = c.drain.spread / 2, "drain.spread"),
        ] {
            let text = fault(set);
            assert!(text.starts_with(key) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn asymmetric_algorithms_are_refused() {
        let text = fault(|config| config.auth.algorithms = vec![jsonwebtoken::Algorithm::RS256]);
        assert!(text.contains("HS256"), "{text}");
    }
}
