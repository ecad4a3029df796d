//! Kubernetes: the EndpointSlices of a service, listed once and then watched. A watch ends by
//! itself after a while and is continued from the last version; where that is gone, the list comes
//! first again.

mod kubeconfig;
mod slices;

use super::http::{Client, Header, Identities, PROMPT, Patience, Token, body, certificates, certificates_in};
use super::{ANSWER_BYTES_MAX, Answer, Slot, Source};
use crate::config::discovery::{Access, Api, Kubernetes as Config, Secret};
use crate::tls;
use kubeconfig::Data;
use slices::{Change, GONE, Slices};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;
use ureq::BodyReader;
use ureq::tls::{ClientCert, PrivateKey};

/// How long a watch runs. A connection that died silently is noticed after this time.
const WATCH_S: u64 = 120;
/// Between two watches.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Kubernetes {
    config: Config,
    tls: bool,
    /// Of the endpoints.
    path: String,
    /// Of the API.
    resource: String,
    client: Client,
    slices: Slices,
    watch: Option<BufReader<BodyReader<'static>>>,
}

impl Kubernetes {
    pub fn new(config: &Config, tls: bool, path: &str, slot: &Slot) -> Result<Kubernetes, String> {
        let (client, namespace) = match &config.access {
            Access::ServiceAccount { folder, server } => in_pod(folder, server.as_deref(), slot)?,
            Access::Kubeconfig(path) => outside(path, slot).map_err(|e| format!("{}: {e}", path.display()))?,
        };
        let namespace = config.namespace.clone().or(namespace).unwrap_or_else(|| "default".to_owned());
        let resource = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let (config, path) = (config.clone(), path.to_owned());
        Ok(Kubernetes { config, tls, path, resource, client, slices: Slices::default(), watch: None })
    }

    fn selector(&self) -> String {
        format!("kubernetes.io/service-name={}", self.config.service)
    }

    /// All endpoints.
    fn all(&self, again: Duration) -> Result<Answer, String> {
        let found = self.slices.found(self.config.port.as_ref(), self.tls, &self.path)?;
        Ok(Answer { found: Some(found), again })
    }

    fn list(&mut self) -> Result<Answer, String> {
        let selector = self.selector();
        let patience = Patience { head: PROMPT, body: PROMPT };
        let response = self.client.get(&self.resource, &[("labelSelector", &selector)], Header::Bearer, patience)?;
        let text = body(&self.resource, response)?;
        self.slices.list(&text).map_err(|e| format!("GET {}: {e}", self.resource))?;
        self.all(Duration::ZERO)
    }

    /// Begins a watch at a version; `false`: the version is gone.
    fn watch(&mut self, version: &str) -> Result<bool, String> {
        let (selector, seconds) = (self.selector(), WATCH_S.to_string());
        let query = [
            ("labelSelector", selector.as_str()),
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ];
        let patience = Patience { head: PROMPT, body: Duration::from_secs(WATCH_S) + PROMPT };
        let response = self.client.get(&self.resource, &query, Header::Bearer, patience)?;
        match response.status().as_u16() {
            200 => self.watch = Some(BufReader::new(response.into_body().into_reader())),
            GONE => return Ok(false),
            status => return Err(format!("GET {} (watch): HTTP status {status}", self.resource)),
        }
        Ok(true)
    }
}

impl Source for Kubernetes {
    fn next(&mut self) -> Result<Answer, String> {
        let unchanged = |again| Ok(Answer { found: None, again });
        let Some(watch) = &mut self.watch else {
            let Some(version) = self.slices.version().map(str::to_owned) else { return self.list() };
            if self.watch(&version)? {
                return unchanged(Duration::ZERO);
            }
            self.slices.expire();
            return unchanged(PAUSE);
        };
        let Some(line) = line(watch)? else {
            // It has ended, or was cut: the next one continues after the last whole line.
            self.watch = None;
            return unchanged(PAUSE);
        };
        match self.slices.event(&line)? {
            Change::Slices => self.all(Duration::ZERO),
            Change::Nothing => unchanged(Duration::ZERO),
            Change::Expired => {
                self.watch = None;
                unchanged(PAUSE)
            }
        }
    }
}

/// The next whole line; `None` at the end of the stream, however it ends.
fn line(watch: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let read = watch.take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
    match (read, line.last()) {
        (Ok(_), Some(b'\n')) => String::from_utf8(line).map(Some).map_err(|_| "an event that is not UTF-8".to_owned()),
        (Ok(n), _) if n as u64 == ANSWER_BYTES_MAX => Err(format!("an event of over {ANSWER_BYTES_MAX} bytes")),
        _ => Ok(None),
    }
}

/// With the service account of a pod; and the namespace of the pod.
fn in_pod(folder: &Path, server: Option<&str>, slot: &Slot) -> Result<(Client, Option<String>), String> {
    let url = match server {
        Some(server) => server.to_owned(),
        None => {
            let missing = "the environment has no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: this is no pod";
            let from = |name: &str| std::env::var(name).map_err(|_| missing.to_owned());
            let (host, port) = (from("KUBERNETES_SERVICE_HOST")?, from("KUBERNETES_SERVICE_PORT")?);
            if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
        }
    };
    let roots = match url.starts_with("https:") {
        true => Some(certificates_in(&folder.join("ca.crt"))?),
        false => None,
    };
    let token = Token::Read(Secret::File(folder.join("token")));
    let api = Api { url, ca: None, token: None };
    let client = Client::with(&api, Identities { roots, client: None, token: Some(token) }, slot)?;
    // Without it the configured namespace is used.
    let namespace = fs::read_to_string(folder.join("namespace")).ok().map(|text| text.trim().to_owned());
    Ok((client, namespace.filter(|namespace| !namespace.is_empty())))
}

/// With a kubeconfig; and the namespace of its context.
fn outside(path: &Path, slot: &Slot) -> Result<(Client, Option<String>), String> {
    let text = fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    let access = kubeconfig::parse(&text, path.parent().unwrap_or(Path::new("")))?;
    let roots = access.ca.as_ref().map(|ca| certificates(&pem(ca)?)).transpose()?;
    let client = access.client.as_ref().map(|(cert, key)| identity(&pem(cert)?, &pem(key)?)).transpose()?;
    let token = access.token.map(|token| match token {
        kubeconfig::Token::Value(value) => Token::Value(value),
        kubeconfig::Token::File(path) => Token::Read(Secret::File(path)),
    });
    let api = Api { url: access.server, ca: None, token: None };
    Ok((Client::with(&api, Identities { roots, client, token }, slot)?, access.namespace))
}

fn identity(certificate: &[u8], key: &[u8]) -> Result<ClientCert, String> {
    tls::check_identity(certificate, key)?;
    let chain = certificates(certificate)?;
    let key = PrivateKey::from_pem(key).map_err(|e| format!("client key: {e}"))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn pem(data: &Data) -> Result<Vec<u8>, String> {
    match data {
        Data::Inline(bytes) => Ok(bytes.clone()),
        Data::File(path) => fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_events() {
        let mut watch = BufReader::new(&b"{\"a\": 1}\n{\"b\": 2}\n{\"cut"[..]);
        assert_eq!(line(&mut watch), Ok(Some("{\"a\": 1}\n".to_owned())));
        assert_eq!(line(&mut watch), Ok(Some("{\"b\": 2}\n".to_owned())));
        assert_eq!(line(&mut watch), Ok(None));
        assert_eq!(line(&mut watch), Ok(None));
        assert!(line(&mut BufReader::new(&b"\xff\n"[..])).is_err());
    }
}
