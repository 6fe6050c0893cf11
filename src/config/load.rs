//! File under environment under flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::setting::{NAMESPACE, Setting, VARIABLE_PREFIX};
use super::{Config, ConfigError, broker};

/// A checked configuration, and where each key that was set came from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// Where it came from, by the name of the setting; what is not here is the default.
    pub origins: BTreeMap<String, Origin>,
    /// What looks like a mistake but may be none.
    pub warnings: Vec<String>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A command line flag.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Variable(variable) => variable.fmt(f),
        }
    }
}

/// Reads a file if there is one, then variables that begin with `FANFARE_`, then flags given as
/// key, flag and value; each overrides what came before. The result is checked.
///
/// A variable that names no key is only a warning, since orchestrators inject such names.
///
/// # Errors
///
/// Everything that is wrong, a line each.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = (&'static str, &'static str, String)>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::default();
    if let Some(path) = file {
        layers.read(path);
    }
    for (variable, value) in variables {
        if variable.starts_with(VARIABLE_PREFIX) {
            layers.set_variable(variable, &value);
        }
    }
    for (key, flag, value) in flags {
        if let Some(setting) = Setting::find(None, key) {
            layers.set(&setting, Origin::Flag(flag), &value);
        }
    }
    if !layers.faults.is_empty() {
        return Err(ConfigError { faults: layers.faults });
    }
    let Layers { config, origins, mut warnings, .. } = layers;
    let config = config.check()?;
    warnings.extend(config.doubts());
    Ok(Loaded { config, origins, warnings })
}

#[derive(Default)]
struct Layers {
    config: Config,
    origins: BTreeMap<String, Origin>,
    warnings: Vec<String>,
    faults: Vec<String>,
}

impl Layers {
    fn read(&mut self, path: &Path) {
        let file = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.faults.push(format!("cannot read {file}: {error}")),
        };
        let sections = match text.parse::<toml::Table>() {
            Ok(sections) => sections,
            Err(error) => {
                let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
                // The parser's own rendering shows the line, which may hold a secret.
                let message = error.message();
                return self.faults.push(format!("{file}, line {}: {message}", line + 1));
            }
        };
        for (section, keys) in sections {
            match keys {
                toml::Value::Table(names) if section == NAMESPACE => {
                    self.read_namespaces(path, names);
                }
                toml::Value::Table(keys) => {
                    for (key, value) in keys {
                        self.set_in_section(path, &format!("{section}.{key}"), value);
                    }
                }
                _ => self.faults.push(format!(
                    "{file}: {section} is not in a section; write [section] and key = value"
                )),
            }
        }
    }

    /// Sets a key, or those of a section within a section.
    fn set_in_section(&mut self, path: &Path, name: &str, value: toml::Value) {
        match value {
            toml::Value::Table(keys) if Setting::is_section(name) => {
                for (key, value) in keys {
                    self.set_in_file(path, None, &format!("{name}.{key}"), value);
                }
            }
            value => self.set_in_file(path, None, name, value),
        }
    }

    fn read_namespaces(&mut self, path: &Path, names: toml::Table) {
        let file = path.display();
        for (name, keys) in names {
            let toml::Value::Table(keys) = keys else {
                self.faults.push(format!(
                    "{file}: {NAMESPACE}.{name} is not in a namespace; write [{NAMESPACE}.<name>] \
                     and {name} = value"
                ));
                continue;
            };
            // One without keys is one too.
            self.config.namespaces.entry(name.clone()).or_default();
            for (key, value) in keys {
                self.set_in_file(path, Some(&name), &key, value);
            }
        }
    }

    fn set_in_file(
        &mut self,
        path: &Path,
        namespace: Option<&str>,
        name: &str,
        value: toml::Value,
    ) {
        let Some(setting) = Setting::find(namespace, name) else {
            let section = namespace.map_or_else(String::new, |it| format!("{NAMESPACE}.{it}."));
            let hint = match value {
                toml::Value::Table(_) => format!("a namespace is written [{NAMESPACE}.<name>]"),
                _ => hint(namespace, name),
            };
            let fault = format!("{}: unknown key {section}{name}; {hint}", path.display());
            return self.faults.push(fault);
        };
        let origin = Origin::File(path.to_owned());
        match scalar(value) {
            Some(text) => self.set(&setting, origin, &text),
            None => self.faults.push(format!(
                "{} in {origin}: a table is not allowed; use {}",
                setting.name(),
                setting.key.allowed()
            )),
        }
    }

    fn set_variable(&mut self, variable: String, value: &str) {
        match Setting::find_variable(&self.config, &variable) {
            Some(setting) => self.set(&setting, Origin::Variable(variable), value),
            None => {
                let name = variable[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
                let hint = match name.splitn(3, '_').collect::<Vec<_>>()[..] {
                    [NAMESPACE, namespace, key] => hint(Some(namespace), key),
                    _ => hint(None, &name.replacen('_', ".", 1)),
                };
                self.warnings.push(format!("{variable} sets nothing; {hint}"));
            }
        }
    }

    fn set(&mut self, setting: &Setting, origin: Origin, text: &str) {
        let name = setting.name();
        if setting.set(&mut self.config, text) {
            self.origins.insert(name, origin);
            return;
        }
        let key = setting.key;
        let value = if key.is_secret() {
            "a value".to_owned()
        } else {
            format!("{:?}", broker::without_passwords(text))
        };
        let (allowed, example) = (key.allowed(), key.example());
        self.faults
            .push(format!("{name} in {origin}: {value} is not allowed; use {allowed}{example}"));
    }
}

fn hint(namespace: Option<&str>, name: &str) -> String {
    Setting::nearest(namespace, name).map_or_else(String::new, |setting| {
        format!("the nearest key is {} ({})", setting.name(), setting.variable())
    })
}

/// A value as text; an array as its elements, separated by commas.
fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Array(values) => {
            let texts: Option<Vec<_>> = values.into_iter().map(scalar).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Table(_) => None,
        value => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Namespace, Publish};
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("fanfare-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn fault(name: &str, text: &str) -> String {
        let path = file(name, text);
        let error = load(Some(&path), [], []).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        error.replace(&path.display().to_string(), "FILE")
    }

    #[test]
    fn flags_override_variables_which_override_the_file() {
        let path = file(
            "layers",
            "[server]\nbind = '1.1.1.1:1'\nshards = 2\n[limits]\noutbox_bytes = '2MiB'\nmessage_bytes = 4096\n\
             [heartbeat]\ninterval = '1m'\n[auth]\nalgorithms = ['HS512', 'HS256']\n",
        );
        let environment =
            variables(&[("FANFARE_SERVER_SHARDS", "3"), ("FANFARE_SERVER_BIND", "2.2.2.2:2")]);
        let flags = [("server.bind", "--bind", "3.3.3.3:3".to_owned())];
        let loaded = load(Some(&path), environment, flags).unwrap();
        std::fs::remove_file(&path).unwrap();
        let Config { server, limits, heartbeat, auth, .. } = &loaded.config;
        assert_eq!((server.bind.port(), server.shards), (3, 3));
        assert_eq!((limits.outbox_bytes, limits.message_bytes), (2 << 20, 4096));
        assert_eq!((heartbeat.interval, auth.algorithms.len()), (Duration::from_secs(60), 2));
        assert_eq!(loaded.origins["server.bind"], Origin::Flag("--bind"));
        assert_eq!(loaded.origins["limits.outbox_bytes"], Origin::File(path));
        assert!(!loaded.origins.contains_key("limits.memory"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        assert_eq!(
            fault("unknown", "[limits]\noutbox_byte = 1\n"),
            "FILE: unknown key limits.outbox_byte; the nearest key is limits.outbox_bytes \
             (FANFARE_LIMITS_OUTBOX_BYTES)"
        );
        assert!(fault("section", "[limit]\nmemory = 1\n").contains("limits.memory"));
        assert!(fault("bare", "bind = 1\n").contains("is not in a section"));
        assert_eq!(
            fault("plural", "[namespaces.news]\npublish = 'nobody'\n"),
            "FILE: unknown key namespaces.news; a namespace is written [namespace.<name>]"
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_what_is_allowed_and_every_one_is_told() {
        let text = fault("bad", "[heartbeat]\ninterval = 25\n[server]\nbind = 'here'\n");
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "heartbeat.interval in FILE: \"25\" is not allowed; use a duration from 100ms to 1h, such as 25s",
                "server.bind in FILE: \"here\" is not allowed; use an address and port such as 127.0.0.1:8080, no host name",
            ]
        );
    }

    #[test]
    fn a_secret_is_never_in_an_error() {
        let short = fault("short", "[auth]\nhmac_secret = 'hunter2'\n");
        assert!(short.starts_with("auth.hmac_secret in FILE: a value is not allowed"), "{short}");
        let broken = fault("broken", "[auth]\nhmac_secret = 'hunter2\n");
        assert!(broken.starts_with("FILE, line 2: ") && !broken.contains("hunter2"), "{broken}");
    }

    #[test]
    fn an_unknown_variable_warns_and_names_the_nearest_key() {
        let environment = variables(&[
            ("FANFARE_LIMIT_MEMORY", "1"),
            ("FANFARE_BIND", "1"),
            ("FANFARE_REDIS_URL", "redis://h"),
            ("PATH", "/bin"),
            ("FANFARE_NAMESPACE_NEWS_HISTROY_SIZE", "1"),
        ]);
        let warnings = load(None, environment, []).unwrap().warnings;
        assert_eq!(
            warnings,
            [
                "FANFARE_LIMIT_MEMORY sets nothing; the nearest key is limits.memory (FANFARE_LIMITS_MEMORY)",
                "FANFARE_BIND sets nothing; the nearest key is server.bind (FANFARE_SERVER_BIND)",
                "FANFARE_REDIS_URL sets nothing; the nearest key is broker.redis.url (FANFARE_BROKER_REDIS_URL)",
                "FANFARE_NAMESPACE_NEWS_HISTROY_SIZE sets nothing; the nearest key is \
                 namespace.news.history_size (FANFARE_NAMESPACE_NEWS_HISTORY_SIZE)",
            ]
        );
    }

    #[test]
    fn namespaces_come_from_file_and_environment() {
        let path = file(
            "namespaces",
            "[channel]\nhistory_size = 1\n[namespace.News]\nhistory_size = 2\npublish = 'token'\n\
             [namespace.empty]\n",
        );
        let environment = variables(&[
            ("FANFARE_NAMESPACE_NEWS_HISTORY_SIZE", "3"),
            ("FANFARE_NAMESPACE_BY_VARIABLE_PRESENCE", "on"),
        ]);
        let loaded = load(Some(&path), environment, []).unwrap();
        std::fs::remove_file(&path).unwrap();
        let Config { channel, namespaces, .. } = &loaded.config;
        let names: Vec<_> = namespaces.keys().map(String::as_str).collect();
        assert_eq!(names, ["News", "by_variable", "empty"]);
        assert_eq!((channel.history_size, namespaces["empty"].history_size), (1, 0));
        let Namespace { history_size, publish, .. } = &namespaces["News"];
        assert_eq!((*history_size, *publish), (3, Publish::Token));
        assert_eq!(loaded.origins["channel.history_size"], Origin::File(path.clone()));
        assert_eq!(loaded.origins["namespace.News.publish"], Origin::File(path));
        let variable = Origin::Variable("FANFARE_NAMESPACE_BY_VARIABLE_PRESENCE".to_owned());
        assert_eq!(loaded.origins["namespace.by_variable.presence"], variable);
    }

    #[test]
    fn faults_in_a_namespace_name_it() {
        assert_eq!(
            fault("namespace-key", "[namespace.news]\nhistory = 1\n"),
            "FILE: unknown key namespace.news.history; the nearest key is \
             namespace.news.history_ttl (FANFARE_NAMESPACE_NEWS_HISTORY_TTL)"
        );
        assert_eq!(
            fault("namespace-value", "[namespace.news]\npresence = true\n"),
            "namespace.news.presence in FILE: \"true\" is not allowed; use off or on"
        );
        assert_eq!(
            fault("namespace-bare", "[namespace]\npresence = 'on'\n"),
            "FILE: namespace.presence is not in a namespace; write [namespace.<name>] and \
             presence = value"
        );
        let text = fault("namespace-name", "[namespace.'a:b']\npresence = 'on'\n");
        assert!(text.starts_with("namespace.a:b: is no name"), "{text}");
    }

    #[test]
    fn what_may_be_a_mistake_is_a_warning() {
        let environment = variables(&[
            ("FANFARE_AUTH_HMAC_SECRET", "sixteen bytes it"),
            ("FANFARE_NAMESPACE_NEWS_ANONYMOUS", "on"),
        ]);
        let warnings = load(None, environment, []).unwrap().warnings;
        assert!(warnings[0].starts_with("auth.hmac_secret is under 32 bytes"), "{warnings:?}");
        assert!(warnings[1].starts_with("namespace.news.anonymous lets nobody"), "{warnings:?}");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let error = load(Some(Path::new("/nowhere/fanfare.toml")), [], []).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/fanfare.toml: "), "{error}");
    }
}
