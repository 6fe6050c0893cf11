//! How a node comes to its servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisError, TlsCertificates, TlsMode, Value, cmd,
};

use super::error::{ConnectError, told};
use super::script::Scripts;
use super::servers::{Leaving, SLOTS, Server, Servers};
use super::{Names, Session, Topic};
use crate::broker::feed::{Feed, Inlet};
use crate::config::{Config, Redis, RedisMode, Secret};

/// Where the servers are, and how to come in.
#[derive(Debug)]
pub(crate) struct Connector {
    settings: Redis,
    /// The servers that are named, or the Sentinels.
    named: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    names: Names,
    max_feed: usize,
}

impl Connector {
    pub(in crate::broker) fn new(config: &Config, uid: &str) -> Result<Self, ConnectError> {
        let settings = config.broker.redis.clone();
        let named = settings.url.split(',').map(|url| named(url.trim(), &settings));
        let named = named.collect::<Result<_, _>>()?;
        let certificates = match &*settings.ca_file {
            "" => None,
            file => {
                let ca = std::fs::read(file);
                let ca = ca.map_err(|error| ConnectError::Ca(format!("{file}: {error}")))?;
                Some(TlsCertificates { client_tls: None, root_cert: Some(ca) })
            }
        };
        let names = Names::new(&config.broker.prefix, &config.chat.channel, uid);
        let max_feed = config.limits.broker_bytes;
        Ok(Self { settings, named, certificates, names, max_feed })
    }

    /// Comes in, by two connections to each server.
    pub(in crate::broker) async fn connect(&self) -> Result<(Session, Feed), ConnectError> {
        let (inlet, feed) = Feed::new(self.max_feed);
        let (inlet, leaving) = (Arc::new(inlet), Leaving::default());
        let (infos, slots) = match self.settings.mode {
            RedisMode::Single => (vec![self.first().await?], Vec::new()),
            RedisMode::Sentinel => (vec![self.primary().await?], Vec::new()),
            RedisMode::Cluster => self.cluster().await?,
        };
        let (mut servers, mut scripts) = (Vec::new(), None);
        for info in infos {
            let address = info.addr().to_string();
            let refused = |error: RedisError| ConnectError::refused(&address, &error);
            let mut commands = self.open(&info, None).await?;
            self.check_version(&address, &mut commands).await?;
            let hearing = self.open(&info, Some((&inlet, &leaving))).await?;
            scripts = Some(Scripts::load(&mut commands).await.map_err(refused)?);
            servers.push(Server { commands, hearing });
        }
        let scripts = scripts.ok_or_else(|| ConnectError::Slots(self.settings.url.clone()))?;
        let servers = Servers::new(servers, slots, inlet, leaving);
        let names = self.names.clone();
        let tags = servers.tags(|tag| names.topic(&Topic::Pulse(tag)));
        let pulses = tags.into_iter().map(Topic::Pulse).collect();
        let session = Session { servers, names, scripts, pulses };
        session.check_rights(&self.settings.url).await?;
        Ok((session, feed))
    }

    /// The first of the named servers that answers.
    async fn first(&self) -> Result<ConnectionInfo, ConnectError> {
        let mut refusal = ConnectError::Slots(self.settings.url.clone());
        for info in &self.named {
            match self.open(info, None).await {
                Ok(_) => return Ok(info.clone()),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The server that the Sentinels say is the primary, and that says so too.
    async fn primary(&self) -> Result<ConnectionInfo, ConnectError> {
        let Redis { primary, sentinel_password, .. } = &self.settings;
        let refused = |error: RedisError| ConnectError::refused(&self.settings.url, &error);
        let addresses = self.named.iter().map(|info| info.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, primary, SentinelServerType::Master)
                .map_err(refused)?;
        let Some(first) = self.named.first() else {
            return Err(ConnectError::Slots(self.settings.url.clone()));
        };
        if let ConnectionAddr::TcpTls { .. } = first.addr() {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
            if let Some(certificates) = &self.certificates {
                builder = builder.set_client_to_redis_certificates(certificates.clone());
                builder = builder.set_client_to_sentinel_certificates(certificates.clone());
            }
        }
        let login = first.redis_settings();
        builder = builder.set_client_to_redis_db(login.db());
        if let Some(username) = login.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(password) = sentinel_password {
            builder = builder.set_client_to_sentinel_password(text(password));
        }
        let mut sentinels = builder.build().map_err(refused)?;
        let found = tokio::time::timeout(PATIENCE, sentinels.async_get_client()).await;
        let found = found.map_err(|_| ConnectError::Refused {
            address: self.settings.url.clone(),
            error: "no Sentinel names a primary within 3 s".to_owned(),
            advice: "; check broker.redis.primary",
        })?;
        let client = found.map_err(refused)?;
        Ok(client.get_connection_info().clone().set_redis_settings(login.clone()))
    }

    /// The primaries of a cluster, and which of them has which slot.
    async fn cluster(&self) -> Result<(Vec<ConnectionInfo>, Vec<u16>), ConnectError> {
        let seed = self.first().await?;
        let address = seed.addr().to_string();
        let mut connection = self.open(&seed, None).await?;
        let ranges = cmd("CLUSTER").arg("SLOTS").query_async::<Vec<Value>>(&mut connection).await;
        let ranges = ranges.map_err(|error| ConnectError::refused(&address, &error))?;
        let mut primaries: Vec<ConnectionInfo> = Vec::new();
        let mut numbers = HashMap::new();
        let mut slots = vec![None; usize::from(SLOTS)];
        for (begin, end, host, port) in ranges.into_iter().filter_map(range) {
            let number = *numbers.entry((host.clone(), port)).or_insert_with(|| {
                primaries.push(seed.clone().set_addr(beside(seed.addr(), &host, port)));
                primaries.len() as u16 - 1
            });
            slots.iter_mut().take(end + 1).skip(begin).for_each(|slot| *slot = Some(number));
        }
        let slots = slots.into_iter().collect::<Option<Vec<_>>>();
        Ok((primaries, slots.ok_or(ConnectError::Slots(address))?))
    }

    async fn open(
        &self,
        info: &ConnectionInfo,
        hears: Option<(&Arc<Inlet>, &Leaving)>,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        if let Some((inlet, leaving)) = hears {
            let (names, inlet, leaving) = (self.names.clone(), inlet.clone(), leaving.clone());
            config = config.set_push_sender(move |push| {
                hear(&names, &inlet, &leaving, push);
                Ok::<_, ::redis::aio::SendError>(())
            });
        }
        let client = match &self.certificates {
            None => Client::open(info.clone()).map_err(|error| ConnectError::Url(told(&error)))?,
            Some(certificates) => Client::build_with_tls(info.clone(), certificates.clone())
                .map_err(|error| ConnectError::Ca(told(&error)))?,
        };
        let opened = client.get_multiplexed_async_connection_with_config(&config).await;
        opened.map_err(|error| ConnectError::refused(&info.addr().to_string(), &error))
    }

    async fn check_version(
        &self,
        address: &str,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), ConnectError> {
        let info = cmd("INFO").arg("server").query_async::<String>(connection).await;
        let info = info.map_err(|error| ConnectError::refused(address, &error))?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let version = version.unwrap_or_default().trim();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let (needed, least) =
            if self.settings.mode == RedisMode::Cluster { CLUSTERED } else { OLDEST };
        if number < needed {
            let (address, version) = (address.to_owned(), version.to_owned());
            return Err(ConnectError::Version { address, version, least });
        }
        Ok(())
    }
}

/// A server as its URL names it, with the login that stands apart.
fn named(url: &str, settings: &Redis) -> Result<ConnectionInfo, ConnectError> {
    let info = url.into_connection_info().map_err(|error| ConnectError::Url(told(&error)))?;
    let mut login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    if let Some(password) = &settings.password {
        login = login.set_password(text(password));
    }
    Ok(info.set_redis_settings(login))
}

/// Another server of the same cluster. One without a host is where it was asked.
fn beside(seed: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    let or = |known: &str| if matches!(host, "" | "?") { known } else { host }.to_owned();
    match seed.clone() {
        ConnectionAddr::TcpTls { host: known, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: or(&known), port, insecure, tls_params }
        }
        ConnectionAddr::Tcp(known, _) => ConnectionAddr::Tcp(or(&known), port),
        other => other,
    }
}

/// First slot, last slot, host and port of the primary.
fn range(value: Value) -> Option<(usize, usize, String, u16)> {
    let Value::Array(range) = value else { return None };
    let mut range = range.into_iter();
    let (Value::Int(begin), Value::Int(end)) = (range.next()?, range.next()?) else { return None };
    let Value::Array(primary) = range.next()? else { return None };
    let mut primary = primary.into_iter();
    let host = match primary.next()? {
        Value::BulkString(host) => String::from_utf8(host).ok()?,
        _ => String::new(),
    };
    let Value::Int(port) = primary.next()? else { return None };
    Some((begin.try_into().ok()?, end.try_into().ok()?, host, port.try_into().ok()?))
}

/// Takes what a server pushes.
fn hear(names: &Names, inlet: &Inlet, leaving: &Leaving, PushInfo { kind, data }: PushInfo) {
    match kind {
        PushKind::Disconnection => inlet.end("the connection that hears ended".to_owned()),
        PushKind::SUnsubscribe => {
            let name = data.into_iter().next();
            if matches!(name, Some(Value::BulkString(name)) if leaving.is_surprise(&name)) {
                inlet.end("a slot has moved to another server".to_owned());
            }
        }
        PushKind::Message | PushKind::SMessage => {
            let data = <[Value; 2]>::try_from(data);
            let Ok([Value::BulkString(name), Value::BulkString(payload)]) = data else { return };
            let topic = std::str::from_utf8(&name).ok().and_then(|name| names.parse(name));
            if let Some(topic) = topic {
                inlet.hear(topic, payload.into());
            }
        }
        _ => {}
    }
}

fn text(secret: &Secret) -> String {
    String::from_utf8_lossy(secret.expose()).into_owned()
}

/// How long coming in may take, and each command.
const PATIENCE: Duration = Duration::from_secs(3);

/// The oldest version that has all that is used, and of a cluster, whose topics have slots since then.
const OLDEST: ((u32, u32), &str) = ((6, 2), "6.2");
const CLUSTERED: ((u32, u32), &str) = ((7, 0), "7.0 for a cluster");
