//! The HTTP client of the sources: blocking, with a limit on everything, over the TLS of this
//! process. A stopped slot ends its requests at once.

use super::{ANSWER_BYTES_MAX, Slot};
use crate::config::discovery::{Api, Secret};
use crate::http;
pub use crate::http::{PROMPT, certificates, certificates_in};
use std::fs;
use std::io::Read;
use std::time::Duration;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert};
use ureq::{Agent, Body};

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
        let agent = http::agent(http::roots(identities.roots, &api.url)?, identities.client);
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
    http::body(response, ANSWER_BYTES_MAX).map_err(|e| format!("GET {path}: {e}"))
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
}
