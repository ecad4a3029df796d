//! HTTP requests of service threads: blocking, over the TLS of this process. Workers have calls of
//! their own (`worker/calls.rs`).

use crate::tls;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

const CONNECT: Duration = Duration::from_secs(5);
/// For an answer that is not held back, and for a request to be taken.
pub const PROMPT: Duration = Duration::from_secs(10);

/// A client that trusts these authorities.
pub fn agent(roots: Vec<Certificate<'static>>, client: Option<ClientCert>) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(client)
        .unversioned_rustls_crypto_provider(Arc::new(tls::provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        // From the environment otherwise: it is not meant for this.
        .proxy(None)
        // A token must not follow a redirect, and keys must not come from one.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("framegate/", env!("CARGO_PKG_VERSION")))
        // A limit on resolving would cost a thread for each request: the system has its own.
        .timeout_resolve(None)
        .timeout_connect(Some(CONNECT))
        .timeout_send_request(Some(PROMPT))
        .build()
        .into()
}

/// The body of an answer with status 200, of at most `bytes_max` bytes of UTF-8.
///
/// # Errors
/// Another status, a longer body, or none in time.
pub fn body(response: Response<Body>, bytes_max: u64) -> Result<String, String> {
    let status = response.status().as_u16();
    if status != 200 {
        return Err(format!("HTTP status {status}"));
    }
    let mut text = String::new();
    let mut reader = response.into_body().into_reader().take(bytes_max + 1);
    reader.read_to_string(&mut text).map_err(|e| e.to_string())?;
    match text.len() as u64 > bytes_max {
        false => Ok(text),
        true => Err(format!("more than {bytes_max} bytes")),
    }
}

/// The authorities for a server: those that are given, or the system's where `url` needs some.
pub fn roots(given: Option<Vec<Certificate<'static>>>, url: &str) -> Result<Vec<Certificate<'static>>, String> {
    match given {
        Some(roots) => Ok(roots),
        None if url.starts_with("https:") => system_roots(),
        None => Ok(Vec::new()),
    }
}

/// The certificates of a PEM file.
pub fn certificates_in(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    certificates(&pem).map_err(|e| format!("{}: {e}", path.display()))
}

pub fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| e.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err("has no certificate in PEM".to_owned()) } else { Ok(certificates) }
}

fn system_roots() -> Result<Vec<Certificate<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let roots: Vec<_> = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    match roots.is_empty() {
        false => Ok(roots),
        true => Err("the system has no root certificates; install them, or set ca".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_needed_in_a_ca_file() {
        assert!(certificates(b"").is_err() && certificates(b"-----BEGIN CERTIFICATE-----\nAA\n").is_err());
    }
}
