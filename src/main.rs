//! The command line: which settings, which server, which exit code. No logic of its own.

mod cli {
    pub(crate) mod dev;
    pub(crate) mod logging;
    pub(crate) mod signals;
}

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use cli::{dev, logging, signals};
use fanfare::auth::SignError;
use fanfare::config::{self, Config, Loaded, Server};
use fanfare::server::{Listeners, serve_hub};
use fanfare::{Hub, Identity, ServeError, UserId, auth};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A broadcast engine for WebSocket peers: one message in, every connected peer gets it.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server to try things out, with a secret and an API key made for this run. Settings
    /// come from the environment alone.
    Dev {
        /// Address and port to listen on; port 0 takes a free one.
        #[arg(long)]
        bind: Option<String>,
        /// Threads that own connections.
        #[arg(long)]
        shards: Option<String>,
    },
    /// Run a server.
    Serve {
        /// A TOML file; the environment and flags override it.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Address and port to listen on; overrides server.bind.
        #[arg(long)]
        bind: Option<String>,
        /// Threads that own connections; overrides server.shards.
        #[arg(long)]
        shards: Option<String>,
    },
    /// Print a token that the server accepts.
    Token {
        /// The user: an integer within ±(2^53-1), or 1 to 128 bytes of text.
        #[arg(long, allow_hyphen_values = true)]
        sub: String,
        /// What others see as its name.
        #[arg(long, conflicts_with = "channel")]
        name: Option<String>,
        /// Print a subscription token instead, for this channel of the same user.
        #[arg(long)]
        channel: Option<String>,
        /// How long it is valid.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// The server's TOML file, if its secret is there.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Check a configuration and print what is in force.
    Check {
        /// A TOML file; the environment overrides it.
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // Usage errors end here, with exit code 2.
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Setup(text)) => {
            eprintln!("fanfare: {}", text.replace('\n', "\n         "));
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            eprintln!("fanfare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What ends the program early, by exit code.
enum Failure {
    /// 2: usage or configuration.
    Setup(String),
    /// 1: everything else.
    Run(Box<dyn Error>),
}

impl From<config::ConfigError> for Failure {
    fn from(error: config::ConfigError) -> Self {
        Self::Setup(error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::Run(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Run(error.into())
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev { bind, shards } => {
            let mut loaded = load(None, bind, shards)?;
            let key = dev::complete(&mut loaded).map_err(Failure::Run)?;
            serve(loaded, |config| dev::greet(config, &key))
        }
        Command::Serve { config, bind, shards } => {
            let loaded = load(config.as_deref(), bind, shards)?;
            if loaded.config.auth.hmac_secret.is_none() {
                return Err(Failure::Setup(NO_SECRET.to_owned()));
            }
            serve(loaded, |config| {
                let Server { bind: address, internal_bind, shards, .. } = config.server;
                tracing::info!(%address, shards, "serving");
                if let Some(address) = internal_bind {
                    tracing::info!(%address, "serving the api, metrics and health");
                }
                if config.api.key.is_none() {
                    tracing::info!("the api is off; set api.key (FANFARE_API_KEY) to use it");
                }
            })
        }
        Command::Token { sub, name, channel, ttl, config } => {
            let auth = load(config.as_deref(), None, None)?.config.auth;
            let user = UserId::parse(&sub).map_err(|error| Failure::Setup(error.to_string()))?;
            let token = if let Some(channel) = channel {
                auth::sign_subscription(&auth, &user, &channel, ttl)
            } else {
                let identity = Identity::new(user);
                let identity = match name {
                    Some(name) => identity.named(name),
                    None => identity,
                };
                auth::sign(&auth, &identity, ttl)
            };
            let token = token.map_err(|error| match error {
                SignError::NoSecret => Failure::Setup(NO_SECRET.to_owned()),
                error => Failure::Setup(error.to_string()),
            });
            print(&format!("{}\n", token?))
        }
        Command::Check { config } => {
            let loaded = load(config.as_deref(), None, None)?;
            logging::check(&loaded.config.log.filter).map_err(Failure::Setup)?;
            loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            if loaded.config.auth.hmac_secret.is_none() {
                eprintln!("warning: serve will not start: {NO_SECRET}");
            }
            let lines = loaded.config.settings().into_iter().map(|setting| {
                let name = setting.name();
                let origin = loaded.origins.get(&name);
                let origin = origin.map_or_else(|| "default".to_owned(), ToString::to_string);
                format!("{name} = {}  # {origin}\n", setting.get(&loaded.config))
            });
            print(&format!("configuration ok\n{}", String::from_iter(lines)))
        }
    }
}

/// Prints to whoever still reads it.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Run(error.into())),
        _ => Ok(()),
    }
}

fn load(
    file: Option<&Path>,
    bind: Option<String>,
    shards: Option<String>,
) -> Result<Loaded, Failure> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("FANFARE_") => {
                return Err(Failure::Setup(format!("{name} is not UTF-8; use text")));
            }
            Err(_) => {}
        }
    }
    let flags = [("server.bind", "--bind", bind), ("server.shards", "--shards", shards)];
    let flags = flags.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value?)));
    Ok(config::load(file, variables, flags)?)
}

/// Serves until a signal ends it; `announce` is told what is served once it is, and where.
fn serve(loaded: Loaded, announce: impl FnOnce(&Config)) -> Result<(), Failure> {
    let Loaded { mut config, warnings, .. } = loaded;
    let _log = logging::start(&config.log.filter).map_err(Failure::Setup)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    let listeners = Listeners::bind(&config.server)?;
    // A port that was 0 is known now.
    config.server.bind = listeners.public.local_addr()?;
    let internal = listeners.internal.as_ref().map(TcpListener::local_addr);
    config.server.internal_bind = internal.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = signals::shutdown()?;
        let hub = Hub::start(config.clone()).map_err(ServeError::from)?;
        announce(&config);
        Ok(serve_hub(listeners, &hub, shutdown).await?)
    })
}

/// Takes as many descriptors as may be had, since each connection needs one.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the descriptor limit");
    }
}

const EXAMPLES: &str = "Examples:
  fanfare dev
  FANFARE_AUTH_HMAC_SECRET=$(openssl rand -base64 32) fanfare serve --bind 0.0.0.0:8080
  fanfare token --sub 42 --name Ada --ttl 1h --config fanfare.toml
  fanfare token --sub 42 --channel private:orders
  fanfare check --config fanfare.toml

Exit codes: 0 ended in order, 1 failed, 2 wrong usage or configuration.";

const NO_SECRET: &str = "no token secret; give one as hmac_secret in [auth] of the --config file, \
    or as FANFARE_AUTH_HMAC_SECRET; make one with: openssl rand -base64 32";
