//! Opening a connection to a server, up to where it has let this node in.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_nats::ServerAddr;
use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::wire::{self, Info, Login, Said};
use crate::config::Secret;

/// A connection on which the server has answered.
pub(super) struct Connection {
    pub(super) stream: Box<dyn Transport>,
    pub(super) buffer: BytesMut,
    pub(super) info: Info,
}

/// Encrypted or not.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Who comes in.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
}

impl Credentials {
    /// The password and the token, as text.
    pub(super) fn secrets(&self) -> [Option<String>; 2] {
        [&self.password, &self.token].map(|secret| {
            secret.as_ref().map(|it| String::from_utf8_lossy(it.expose()).into_owned())
        })
    }
}

/// Why a connection does not open.
#[derive(Debug)]
pub(super) enum DialError {
    Io(io::Error),
    /// The server says so.
    Refused(String),
}

impl Connection {
    pub(super) async fn open(
        server: &ServerAddr,
        credentials: &Credentials,
        trust: &Arc<ClientConfig>,
    ) -> Result<Self, DialError> {
        let tcp = TcpStream::connect((server.host(), server.port())).await?;
        tcp.set_nodelay(true)?;
        let (mut stream, mut buffer) = (Box::new(tcp) as Box<dyn Transport>, BytesMut::new());
        let Said::Info(text) = read(&mut stream, &mut buffer).await? else {
            return Err(io::Error::other("it is no server of NATS").into());
        };
        let info: Info = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let is_encrypted = server.tls_required() || info.tls_required;
        if is_encrypted {
            // Else it would be taken for what comes encrypted.
            if !buffer.is_empty() {
                return Err(
                    io::Error::other("it goes on before the connection is encrypted").into()
                );
            }
            let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
            stream = Box::new(TlsConnector::from(trust.clone()).connect(name, stream).await?);
        }
        let mut line = Self { stream, buffer, info };
        line.log_in(credentials, is_encrypted).await?;
        Ok(line)
    }

    async fn log_in(
        &mut self,
        credentials: &Credentials,
        tls_required: bool,
    ) -> Result<(), DialError> {
        let [password, token] = credentials.secrets();
        let login = Login {
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            name: "fanfare",
            protocol: 1,
            headers: true,
            no_responders: true,
            tls_required,
            user: Some(&*credentials.user).filter(|user| !user.is_empty()),
            pass: password.as_deref(),
            auth_token: token.as_deref(),
            ..Login::default()
        };
        let login = serde_json::to_string(&login).map_err(io::Error::other)?;
        self.stream.write_all(format!("CONNECT {login}\r\nPING\r\n").as_bytes()).await?;
        loop {
            match read(&mut self.stream, &mut self.buffer).await? {
                Said::Pong => return Ok(()),
                Said::Error(error) => return Err(DialError::Refused(error)),
                Said::Ping => self.stream.write_all(b"PONG\r\n").await?,
                Said::Info(_) | Said::Message(_) => {}
            }
        }
    }
}

/// What certificates are trusted: those of a file, or the system's.
pub(super) fn trust(ca_file: &str) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if ca_file.is_empty() {
        // One of the system's that cannot be read may be of no use here; without any, TLS says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(io::Error::other)? {
            let certificate = certificate.map_err(io::Error::other)?;
            roots.add(certificate).map_err(io::Error::other)?;
        }
        if roots.is_empty() {
            return Err(io::Error::other("it has no certificate; use one or more as PEM"));
        }
    }
    // Named, as an embedder may have compiled in more than one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider);
    let tls = tls.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(tls.with_root_certificates(roots).with_no_client_auth())
}

async fn read(stream: &mut Box<dyn Transport>, buffer: &mut BytesMut) -> io::Result<Said> {
    loop {
        if let Some(said) = wire::take(buffer)? {
            return Ok(said);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closes the connection"));
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(error) => f.write_str(error),
        }
    }
}
