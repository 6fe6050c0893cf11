//! [`RedisTls`]: one server that speaks nothing but TLS.

use std::path::PathBuf;

use crate::daemon::Daemon;
use crate::directory::Directory;
use crate::process::{program, run};
use crate::redis;

/// A `redis-server` with a certificate for 127.0.0.1 and `localhost`, from an authority that
/// nobody else trusts; clients need no certificate.
pub struct RedisTls {
    daemon: Daemon,
    certificates: Directory,
}

impl RedisTls {
    /// A server with certificates of its own, valid for two days.
    pub fn start() -> Self {
        let certificates = certificates();
        let [ca, cert, key] =
            ["ca.pem", "server.pem", "server.key"].map(|name| certificates.path().join(name));
        let daemon = Daemon::start(redis::SERVES, move |port, directory| {
            let mut command = redis::server(port, directory);
            command.args(["--port", "0", "--tls-port", &port.to_string()]);
            command.args(["--tls-auth-clients", "no"]);
            command.arg("--tls-ca-cert-file").arg(&ca);
            command.arg("--tls-cert-file").arg(&cert).arg("--tls-key-file").arg(&key);
            command
        });
        Self { daemon, certificates }
    }

    /// Its address as settings take it.
    pub fn url(&self) -> String {
        format!("rediss://{}", self.daemon.address())
    }

    /// The authority's certificate, in PEM.
    pub fn ca(&self) -> PathBuf {
        self.certificates.path().join("ca.pem")
    }
}

/// Makes an authority and what it signs: `ca.pem`, `server.pem` and `server.key`.
pub fn certificates() -> Directory {
    let directory = Directory::new();
    let authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"];
    let server = ["-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=server"];
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", NAMES, "-addext", LEAF];
    for arguments in [authority.to_vec(), [&server[..], &signed[..]].concat()] {
        let mut openssl = program("openssl");
        openssl.current_dir(directory.path()).args(["req", "-x509", "-days", "2", "-nodes"]);
        run(openssl.args(["-newkey", "ec", "-pkeyopt", CURVE]).args(arguments));
    }
    directory
}

const CURVE: &str = "ec_paramgen_curve:prime256v1";
const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost";
/// Strict clients take no authority's certificate from a server.
const LEAF: &str = "basicConstraints=critical,CA:FALSE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_trusts_the_authority_is_content() {
        let redis = RedisTls::start();
        let (url, ca) = (redis.url(), redis.ca());
        let trusting = run(program("redis-cli").args(["-u", &url, "--cacert"]).arg(ca).arg("ping"));
        assert_eq!(trusting, "PONG");
        let refused = program("redis-cli").args(["-u", &url, "ping"]).output().unwrap();
        assert!(String::from_utf8(refused.stderr).unwrap().contains("certificate verify failed"));
    }
}
