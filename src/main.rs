//! The command line: which settings, which server, which exit code. No logic of its own.

mod dev;
mod logging;
mod signals;

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fanfare::auth::SignError;
use fanfare::config::{self, Config, Loaded};
use fanfare::{Identity, UserId, auth};

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
        #[arg(long)]
        name: Option<String>,
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

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev { bind, shards } => {
            let mut loaded = load(None, bind, shards)?;
            let key = dev::complete(&mut loaded).map_err(Failure::Run)?;
            serve(loaded, |config, address| dev::greet(config, address, &key))
        }
        Command::Serve { config, bind, shards } => {
            let loaded = load(config.as_deref(), bind, shards)?;
            if loaded.config.auth.hmac_secret.is_none() {
                return Err(Failure::Setup(NO_SECRET.to_owned()));
            }
            serve(loaded, |config, address| {
                tracing::info!(%address, shards = config.server.shards, "serving");
                if config.api.key.is_none() {
                    tracing::info!("the api is off; set api.key (FANFARE_API_KEY) to use it");
                }
            })
        }
        Command::Token { sub, name, ttl, config } => {
            let auth = load(config.as_deref(), None, None)?.config.auth;
            let user = UserId::parse(&sub).map_err(|error| Failure::Setup(error.to_string()))?;
            let mut identity = Identity::new(user);
            if let Some(name) = name {
                identity = identity.named(name);
            }
            let token = auth::sign(&auth, &identity, ttl).map_err(|error| match error {
                SignError::NoSecret => Failure::Setup(NO_SECRET.to_owned()),
                error => Failure::Setup(error.to_string()),
            });
            println!("{}", token?);
            Ok(())
        }
        Command::Check { config } => {
            let loaded = load(config.as_deref(), None, None)?;
            logging::check(&loaded.config.log.filter).map_err(Failure::Setup)?;
            loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            if loaded.config.auth.hmac_secret.is_none() {
                eprintln!("warning: serve will not start: {NO_SECRET}");
            }
            println!("configuration ok");
            for setting in loaded.config.settings() {
                let name = setting.name();
                let origin = loaded.origins.get(&name);
                let origin = origin.map_or_else(|| "default".to_owned(), ToString::to_string);
                println!("{name} = {}  # {origin}", setting.get(&loaded.config));
            }
            Ok(())
        }
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

/// Serves until a signal ends it; `announce` is told the address once it is bound.
fn serve(loaded: Loaded, announce: impl FnOnce(&Config, SocketAddr)) -> Result<(), Failure> {
    let Loaded { config, warnings, .. } = loaded;
    let _log = logging::start(&config.log.filter).map_err(Failure::Setup)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    let bind = config.server.bind;
    let listener = TcpListener::bind(bind).map_err(|error| {
        Failure::Run(
            format!("cannot listen on {bind}: {error}; use --bind for another address").into(),
        )
    })?;
    let address = listener.local_addr().map_err(|error| Failure::Run(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Run(error.into()))?;
    runtime.block_on(async {
        let shutdown = signals::shutdown().map_err(|error| Failure::Run(error.into()))?;
        announce(&config, address);
        let served = fanfare::serve(listener, config, shutdown).await;
        served.map_err(|error| Failure::Run(error.into()))
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
  fanfare check --config fanfare.toml

Exit codes: 0 ended in order, 1 failed, 2 wrong usage or configuration.";

const NO_SECRET: &str = "no token secret; give one as hmac_secret in [auth] of the --config file, \
    or as FANFARE_AUTH_HMAC_SECRET; make one with: openssl rand -base64 32";
