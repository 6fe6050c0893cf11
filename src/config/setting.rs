//! A key in its place. Each namespace has the keys of `channel.*`, so they stand once for channels
//! outside of any namespace and once for each.

use super::table::KEYS;
use super::{Config, Key};

impl Config {
    /// Everything that can be set, in the order of the documentation and then by namespace.
    pub fn settings(&self) -> Vec<Setting> {
        let plain = KEYS.iter().map(|key| Setting { key, namespace: None });
        let spaced = self.namespaces.keys().flat_map(|name| {
            namespace_keys().map(|key| Setting { key, namespace: Some(name.clone()) })
        });
        plain.chain(spaced).collect()
    }
}

/// A key in its place.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is set, and within which bounds.
    pub key: &'static Key,
    /// The namespace for which it is, if it is for one.
    namespace: Option<String>,
}

impl Setting {
    /// A key of `channel.*` in a namespace, or any key outside of one, by what the file calls it
    /// within its section or within none.
    pub(super) fn find(namespace: Option<&str>, name: &str) -> Option<Self> {
        let key = match namespace {
            None => KEYS.iter().find(|key| key.name == name),
            Some(_) => namespace_keys().find(|key| in_channel(key) == Some(name)),
        };
        Some(Self { key: key?, namespace: namespace.map(str::to_owned) })
    }

    /// Whether keys lie within that.
    pub(super) fn is_section(name: &str) -> bool {
        let lies_within =
            |key: &Key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        KEYS.iter().any(lies_within)
    }

    /// What a variable sets. The name of a namespace is in lower case, unless one that is already
    /// there looks like the variable's when written as such.
    pub(super) fn find_variable(config: &Config, variable: &str) -> Option<Self> {
        let name = variable.strip_prefix(VARIABLE_PREFIX)?;
        if let Some(key) = KEYS.iter().find(|key| in_capitals(key.name) == name) {
            return Some(Self { key, namespace: None });
        }
        let rest = name.strip_prefix(&in_capitals(NAMESPACE))?.strip_prefix('_')?;
        let (namespace, key) = namespace_keys().find_map(|key| {
            let suffix = in_capitals(in_channel(key)?);
            Some((rest.strip_suffix(&suffix)?.strip_suffix('_')?, key))
        })?;
        let lower = namespace.to_ascii_lowercase();
        let mut known = config.namespaces.keys();
        let namespace = match known.find(|known| in_capitals(known) == namespace) {
            Some(known) if !config.namespaces.contains_key(&lower) => known.clone(),
            _ => lower,
        };
        Some(Self { key, namespace: Some(namespace) })
    }

    /// The setting whose name is nearest to one that is none.
    pub(super) fn nearest(namespace: Option<&str>, name: &str) -> Option<Self> {
        let distance = |key: &str| strsim::damerau_levenshtein(key, name);
        let key = match namespace {
            // One that lacks its section, or has another, is nearer than one that merely looks alike.
            None => {
                let lacks = |key: &str| {
                    name.split('.').filter(|part| !key.split('.').any(|it| it == *part)).count()
                };
                KEYS.iter().min_by_key(|key| (lacks(key.name), distance(key.name)))
            }
            Some(_) => namespace_keys().min_by_key(|key| in_channel(key).map(distance)),
        };
        Some(Self { key: key?, namespace: namespace.map(str::to_owned) })
    }

    /// `section.key`, or `namespace.<name>.key`.
    pub fn name(&self) -> String {
        match (&self.namespace, in_channel(self.key)) {
            (Some(namespace), Some(key)) => format!("{NAMESPACE}.{namespace}.{key}"),
            _ => self.key.name.to_owned(),
        }
    }

    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", in_capitals(&self.name()))
    }

    /// The value in a configuration, as text; of a secret only whether there is one.
    pub fn get(&self, config: &Config) -> String {
        self.within(&mut config.clone(), |config| self.key.get(config))
    }

    /// Sets it from text; false if the text is not allowed.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        self.within(config, |config| self.key.set(config, text))
    }

    /// Whether the value in a configuration is allowed.
    pub(super) fn is_in_bounds(&self, config: &Config) -> bool {
        self.within(&mut config.clone(), |config| self.key.is_in_bounds(config))
    }

    /// Has `channel.*` be the namespace's for as long as `work` takes; one that is not there comes
    /// to be.
    fn within<T>(&self, config: &mut Config, work: impl FnOnce(&mut Config) -> T) -> T {
        let Some(name) = &self.namespace else { return work(config) };
        let mut namespace = config.namespaces.remove(name).unwrap_or_default();
        std::mem::swap(&mut config.channel, &mut namespace);
        let done = work(config);
        std::mem::swap(&mut config.channel, &mut namespace);
        config.namespaces.insert(name.clone(), namespace);
        done
    }
}

/// The section of namespaces.
pub(super) const NAMESPACE: &str = "namespace";

/// What every variable begins with.
pub(super) const VARIABLE_PREFIX: &str = "FANFARE_";

fn namespace_keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| in_channel(key).is_some())
}

/// What a key is called in its section, if that is the one of channels.
fn in_channel(key: &Key) -> Option<&'static str> {
    key.name.strip_prefix("channel.")
}

/// A name as variables have it.
fn in_capitals(name: &str) -> String {
    name.replace(['.', '-'], "_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespace;

    fn with(names: &[&str]) -> Config {
        let namespaces = names.iter().map(|name| ((*name).to_owned(), Namespace::default()));
        Config { namespaces: namespaces.collect(), ..Config::default() }
    }

    #[test]
    fn every_setting_is_found_by_its_variable() {
        let config = with(&["news", "live_2"]);
        let settings = config.settings();
        assert_eq!(settings.len(), KEYS.len() + 2 * namespace_keys().count());
        for setting in settings {
            let found = Setting::find_variable(&config, &setting.variable()).unwrap();
            assert_eq!(found.name(), setting.name());
        }
    }

    #[test]
    fn a_variable_names_a_namespace_in_lower_case_or_as_the_file_does() {
        for (names, variable, name) in [
            (&[][..], "FANFARE_NAMESPACE_MY_FEED_HISTORY_SIZE", "namespace.my_feed.history_size"),
            (&["My-Feed"], "FANFARE_NAMESPACE_MY_FEED_PUBLISH", "namespace.My-Feed.publish"),
            (
                &["my-feed", "my_feed"],
                "FANFARE_NAMESPACE_MY_FEED_PUBLISH",
                "namespace.my_feed.publish",
            ),
        ] {
            assert_eq!(Setting::find_variable(&with(names), variable).unwrap().name(), name);
        }
        for variable in
            ["FANFARE_NAMESPACE_PUBLISH", "FANFARE_NAMESPACE_A_BIND", "NAMESPACE_A_PUBLISH"]
        {
            assert!(Setting::find_variable(&Config::default(), variable).is_none(), "{variable}");
        }
    }

    #[test]
    fn a_namespace_has_values_of_its_own() {
        let mut config = Config::default();
        let setting = Setting::find(Some("news"), "history_size").unwrap();
        assert!(setting.set(&mut config, "5"));
        assert_eq!((config.channel.history_size, config.namespaces["news"].history_size), (0, 5));
        assert_eq!(setting.get(&config), "5");
        assert!(!setting.set(&mut config, "-5"));
    }
}
