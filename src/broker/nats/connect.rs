//! How a node comes to one of its servers.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use futures_util::future::try_join_all;
use rustls::ClientConfig;

use super::dial::{self, Connection, Credentials, DialError};
use super::error::JetStreamError;
use super::hear::Hearing;
use super::history::Heads;
use super::jetstream::JetStream;
use super::lease::OwnLease;
use super::names::{Names, Store};
use super::{Clock, PATIENCE, Session, streams};
use crate::broker::feed::{Feed, Inlet};
use crate::broker::parcel;
use crate::config::Config;

/// Where the servers are, and how to come in.
#[derive(Debug)]
pub(crate) struct Connector {
    servers: Vec<ServerAddr>,
    credentials: Credentials,
    trust: Arc<ClientConfig>,
    names: Names,
    config: Arc<Config>,
    /// The lease, which outlasts sessions.
    hold: OwnLease,
}

/// Why a node does not come in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("broker.nats.url: {0}; use nats://host:4222 or, with TLS, tls://host:4222")]
    Url(String),
    #[error("broker.nats.ca_file: {0}")]
    Ca(String),
    #[error("broker.nats.url: {address}: {error}{advice}")]
    Refused { address: String, error: String, advice: &'static str },
    #[error("broker.nats.url: {address} is version {version}; use 2.10 or later")]
    Version { address: String, version: String },
    #[error(
        "broker.nats.url: {address} has a max_payload of {max}; set that to {least} or more in the \
         configuration of nats-server, or lower limits.message_bytes if it is above 64 KiB"
    )]
    Payload { address: String, max: usize, least: usize },
    #[error("broker.nats.url: {address} has no JetStream; start it with -js")]
    NoJetStream { address: String },
    #[error("broker.nats.url: {address} does not keep the stream {stream}: {error}")]
    Stream { address: String, stream: String, error: String },
}

impl Connector {
    pub(in crate::broker) fn new(config: &Config, uid: &str) -> Result<Self, ConnectError> {
        let nats = &config.broker.nats;
        let servers = nats.url.split(',').map(|url| {
            url.trim()
                .parse()
                .map_err(|error| ConnectError::Url(format!("{}: {error}", url.trim())))
        });
        let trust = dial::trust(&nats.ca_file);
        let trust =
            trust.map_err(|error| ConnectError::Ca(format!("{}: {error}", nats.ca_file)))?;
        let (password, token) = (nats.password.clone(), nats.token.clone());
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            credentials: Credentials { user: nats.user.clone(), password, token },
            trust: Arc::new(trust),
            names: Names::new(&config.broker.prefix, &config.chat.channel, uid),
            config: Arc::new(config.clone()),
            hold: OwnLease::default(),
        })
    }

    /// Comes in, by two connections to the same server.
    pub(in crate::broker) async fn connect(&self) -> Result<(Session, Feed), ConnectError> {
        let (server, line) = self.dial().await?;
        let address = address(&server);
        check_version(&address, &line.info.version)?;
        self.check_payload(&address, line.info.max_payload)?;
        let entered = tokio::time::timeout(PATIENCE, self.enter(&server, &address, line)).await;
        entered.unwrap_or_else(|_| Err(refused(&address, SLOW.to_owned())))
    }

    async fn enter(
        &self,
        server: &ServerAddr,
        address: &str,
        line: Connection,
    ) -> Result<(Session, Feed), ConnectError> {
        let (inlet, mut feed) = Feed::new(self.config.limits.broker_bytes);
        let inlet = Arc::new(inlet);
        let client = self.client(server, &inlet).await?;
        // What one server says of subscriptions holds for no other, and a name may lead to several.
        if client.server_info().server_id != line.info.server_id {
            return Err(refused(
                address,
                "two servers answer there by turns; name one each".to_owned(),
            ));
        }
        let hearing = Hearing::start(line, client.new_inbox(), inlet);
        let session = tokio::select! {
            biased;
            // Nothing is subscribed, so that all that comes is why either connection ended.
            Err(failure) = feed.next() => return Err(refused(address, failure.to_string())),
            session = self.session(address, client, hearing) => session?,
        };
        Ok((session, feed))
    }

    async fn session(
        &self,
        address: &str,
        client: Client,
        hearing: Hearing,
    ) -> Result<Session, ConnectError> {
        let jetstream = JetStream::new(client, hearing.clone(), self.names.clone());
        self.open(address, &jetstream).await?;
        let clock = self.clock(&jetstream).await.map_err(|it| refused(address, it.to_string()))?;
        Ok(Session {
            hearing,
            jetstream,
            names: self.names.clone(),
            heads: Heads::default(),
            clock,
            hold: self.hold.clone(),
            lacks_stream: AtomicBool::new(false),
        })
    }

    /// Sees that it has all the streams.
    async fn open(&self, address: &str, jetstream: &JetStream) -> Result<(), ConnectError> {
        jetstream.check().await.map_err(|error| match error {
            JetStreamError::Lost(error) => refused(address, error),
            _ => ConnectError::NoJetStream { address: address.to_owned() },
        })?;
        try_join_all(Store::ALL.map(async |store| {
            let wanted = streams::wanted(store, &self.names, &self.config);
            jetstream.make(wanted).await.map_err(|error| {
                let (address, stream) = (address.to_owned(), self.names.stream(store));
                ConnectError::Stream { address, stream, error }
            })
        }))
        .await
        .map(drop)
    }

    /// The first server that lets this node in, from any one on, so that nodes do not all come to the same.
    async fn dial(&self) -> Result<(ServerAddr, Connection), ConnectError> {
        let mut first = [0];
        // Without chance it is merely always the same.
        let _ = getrandom::fill(&mut first);
        let servers = self.servers.iter().cycle().skip(usize::from(first[0]) % self.servers.len());
        // However many there are, a start does not take much longer.
        let patience = (PATIENCE / self.servers.len() as u32).max(PATIENCE_MIN);
        let mut refusal = ConnectError::Url("there is none".to_owned());
        for server in servers.take(self.servers.len()) {
            let opened = Connection::open(server, &self.credentials, &self.trust);
            match tokio::time::timeout(patience, opened).await {
                Ok(Ok(line)) => return Ok((server.clone(), line)),
                Ok(Err(error)) => refusal = self.refusal(server, &error),
                Err(_) => refusal = refused(&address(server), SILENCE.to_owned()),
            }
        }
        Err(refusal)
    }

    /// The connection for what is asked. With it the session ends, so it need not come back by itself.
    async fn client(
        &self,
        server: &ServerAddr,
        inlet: &Arc<Inlet>,
    ) -> Result<Client, ConnectError> {
        let inlet = inlet.clone();
        let mut options = ConnectOptions::new()
            .name("fanfare")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .max_reconnects(1)
            .ignore_discovered_servers()
            .event_callback(move |event| {
                if !matches!(event, Event::Connected | Event::LameDuckMode) {
                    inlet.end(format!("the connection that asks: {event}"));
                }
                std::future::ready(())
            });
        let [password, token] = self.credentials.secrets();
        if !self.credentials.user.is_empty() {
            let user = self.credentials.user.clone();
            options = options.user_and_password(user, password.unwrap_or_default());
        }
        if let Some(token) = token {
            options = options.token(token);
        }
        options = options.tls_client_config((*self.trust).clone());
        let connected = options.connect(server.clone()).await;
        connected.map_err(|error| refused(&address(server), error.to_string()))
    }

    /// What is published must not fit by chance.
    fn check_payload(&self, address: &str, max: usize) -> Result<(), ConnectError> {
        let least = self.config.limits.message_bytes + parcel::MAX_BYTES;
        if max < least {
            return Err(ConnectError::Payload { address: address.to_owned(), max, least });
        }
        Ok(())
    }

    async fn clock(&self, jetstream: &JetStream) -> Result<Clock, JetStreamError> {
        let (subject, at) = (self.names.clock(), Instant::now());
        jetstream.put(subject.clone(), None, None, Bytes::new()).await?;
        let record = jetstream.last(Store::Nodes, &subject).await?;
        let record =
            record.ok_or_else(|| JetStreamError::Lost("it does not keep the time".to_owned()))?;
        Ok(Clock::new(record.time, at))
    }

    fn refusal(&self, server: &ServerAddr, error: &DialError) -> ConnectError {
        let text = error.to_string().replace('\n', " ");
        let advice = match error {
            DialError::Io(_) if text.contains("certificate") => {
                "; set broker.nats.ca_file if the system does not know its authority"
            }
            DialError::Io(_) if server.tls_required() => "; does the server there speak TLS?",
            DialError::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                "; is the server running there?"
            }
            DialError::Io(error) if error.kind() == ErrorKind::InvalidData => {
                "; is it a server of NATS?"
            }
            DialError::Io(_) => "",
            DialError::Refused(_) if self.credentials.token.is_some() => {
                "; check broker.nats.token"
            }
            DialError::Refused(_) => {
                "; check broker.nats.user and broker.nats.password, or set broker.nats.token"
            }
        };
        ConnectError::Refused { address: address(server), error: text, advice }
    }
}

fn refused(address: &str, error: String) -> ConnectError {
    let advice = if error.contains("Permissions Violation") { RIGHTS } else { "" };
    ConnectError::Refused { address: address.to_owned(), error, advice }
}

fn check_version(address: &str, version: &str) -> Result<(), ConnectError> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if number < OLDEST {
        let (address, version) = (address.to_owned(), version.to_owned());
        return Err(ConnectError::Version { address, version });
    }
    Ok(())
}

fn address(server: &ServerAddr) -> String {
    format!("{}:{}", server.host(), server.port())
}

const SLOW: &str = "its JetStream does not answer within 3 s; has its cluster a leader?";

const RIGHTS: &str = "; let the user publish and subscribe on <broker.prefix>.v1.> and _INBOX.>, and publish on \
    $JS.API.>";

const SILENCE: &str = "nothing answers there in time; is it a server of NATS?";

/// How long each of many servers is given at least.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Servers before, killed while busy, delete publications that must be kept, and let two nodes take one
/// position in a stream of several copies.
const OLDEST: (u32, u32) = (2, 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_lose_publications_are_refused_by_their_version() {
        for version in ["2.10.0", "2.10.27", "2.15.1", "2.12.0-RC.1", "3.0.0"] {
            assert!(check_version("a", version).is_ok(), "{version}");
        }
        for version in ["2.9.10", "1.4.1", "", "two"] {
            let error = check_version("127.0.0.1:4222", version).unwrap_err().to_string();
            let expected =
                format!("broker.nats.url: 127.0.0.1:4222 is version {version}; use 2.10 or later");
            assert_eq!(error, expected);
        }
    }
}
