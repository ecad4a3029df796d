//! The HTTP client of the sources: blocking, with a limit on everything, over the TLS of this
//! process. A stopped slot ends its requests at once.

use super::{ANSWER_BYTES_MAX, Slot};
use crate::config::discovery::{Api, Secret};
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
/// For an answer that is not held back.
pub const PROMPT: Duration = Duration::from_secs(10);
const SECRET_BYTES_MAX: u64 = 64 << 10;

pub struct Client {
    agent: Agent,
    url: String,
    token: Option<Token>,
}

/// A token to send, which is a secret.
pub enum Token {
    Value(String),
    /// Read for each request: it may be replaced at any time.
    Read(Secret),
}

/// How a token is sent.
#[derive(Debug, Clone, Copy)]
pub enum Header {
    /// `Authorization: Bearer`.
    Bearer,
    /// `X-Consul-Token`.
    Consul,
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the head of the answer.
    pub head: Duration,
    /// For all of the body.
    pub body: Duration,
}

/// What a server and a client are known by.
pub struct Identities {
    /// `None`: the system's.
    pub roots: Option<Vec<Certificate<'static>>>,
    pub client: Option<ClientCert>,
    pub token: Option<Token>,
}

impl Client {
    /// # Errors
    /// The CA file cannot be used, or there are no roots for `https`.
    pub fn new(api: &Api, slot: &Slot) -> Result<Client, String> {
        let roots = api.ca.as_deref().map(certificates_in).transpose()?;
        let token = api.token.clone().map(Token::Read);
        Client::with(api, Identities { roots, client: None, token }, slot)
    }

    pub fn with(api: &Api, identities: Identities, slot: &Slot) -> Result<Client, String> {
        let roots = match identities.roots {
            Some(roots) => roots,
            None if api.url.starts_with("https:") => system_roots()?,
            None => Vec::new(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(identities.client)
            .unversioned_rustls_crypto_provider(Arc::new(tls::provider()))
            .build();
        let agent: Agent = Agent::config_builder()
            .tls_config(tls)
            // From the environment otherwise: it is not meant for this.
            .proxy(None)
            // A token must not follow a redirect.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("framegate/", env!("CARGO_PKG_VERSION")))
            // A limit on resolving would cost a thread for each request: the system has its own.
            .timeout_resolve(None)
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(PROMPT))
            .build()
            .into();
        let theirs = agent.clone();
        slot.interrupt_with(Box::new(move || theirs.shutdown()));
        Ok(Client { agent, url: api.url.clone(), token: identities.token })
    }

    /// The answer to `GET`, whatever its status.
    pub fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        header: Header,
        patience: Patience,
    ) -> Result<Response<Body>, String> {
        let mut request = self.agent.get(format!("{}{path}", self.url)).header("Accept", "application/json");
        for (name, value) in query {
            request = request.query(*name, *value);
        }
        if let Some(token) = &self.token {
            let token = match token {
                Token::Value(value) => value.clone(),
                Token::Read(secret) => read(secret)?,
            };
            request = match header {
                Header::Bearer => request.header("Authorization", format!("Bearer {token}")),
                Header::Consul => request.header("X-Consul-Token", token),
            };
        }
        let config = request.config();
        let request = config.timeout_recv_response(Some(patience.head)).timeout_recv_body(Some(patience.body)).build();
        request.call().map_err(|e| format!("GET {path}: {e}"))
    }
}

/// The body of an answer with status 200.
pub fn body(path: &str, response: Response<Body>) -> Result<String, String> {
    let status = response.status().as_u16();
    if status != 200 {
        return Err(format!("GET {path}: HTTP status {status}"));
    }
    let mut text = String::new();
    let mut reader = response.into_body().into_reader().take(ANSWER_BYTES_MAX + 1);
    reader.read_to_string(&mut text).map_err(|e| format!("GET {path}: {e}"))?;
    match text.len() as u64 > ANSWER_BYTES_MAX {
        false => Ok(text),
        true => Err(format!("GET {path}: more than {ANSWER_BYTES_MAX} bytes")),
    }
}

/// A secret, without the space around it. Errors do not have it.
fn read(secret: &Secret) -> Result<String, String> {
    let (text, from) = match secret {
        Secret::File(path) => {
            let mut text = String::new();
            let from = path.display().to_string();
            let file = fs::File::open(path).map_err(|e| format!("cannot read {from}: {e}"))?;
            file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|e| format!("cannot read {from}: {e}"))?;
            (text, from)
        }
        Secret::Env(name) => {
            let text = std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
            (text, name.clone())
        }
    };
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(format!("{from} has no token")),
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
    fn a_token_is_one_word_and_errors_do_not_have_it() {
        let path = std::env::temp_dir().join(format!("framegate-token-{}", std::process::id()));
        let from = Secret::File(path.clone());
        assert!(read(&from).is_err_and(|e| e.starts_with("cannot read")));
        for (text, token) in
            [("sesame", Some("sesame")), (" sesame\r\n", Some("sesame")), ("", None), ("se same", None)]
        {
            std::fs::write(&path, text).unwrap();
            let token = token.map(str::to_owned).ok_or(format!("{} has no token", path.display()));
            assert_eq!(read(&from), token);
        }
        std::fs::remove_file(&path).unwrap();
        let missing = read(&Secret::Env("FRAMEGATE_NOT_SET".into()));
        assert_eq!(missing, Err("the environment variable FRAMEGATE_NOT_SET is not set".into()));
    }

    #[test]
    fn certificates_are_needed_in_a_ca_file() {
        assert!(certificates(b"").is_err() && certificates(b"-----BEGIN CERTIFICATE-----\nAA\n").is_err());
    }
}
