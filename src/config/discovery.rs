//! Service discovery: `[upstream.discover]`, the sources that supply endpoints of an upstream at
//! run time. Secrets are only named here; the sources read them at run time.

use super::build::Builder;
use super::endpoint;
use super::file::{self, Section, Typed};
use super::value::{self, Parsed, quoted, shown, text};
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

pub use super::endpoint::endpoint;

/// Upstreams that discover their endpoints; each has a thread.
pub const DISCOVERING_MAX: usize = 64;
const DNS_PORT: u16 = 53;
const SERVERS_MAX: usize = 8;
const DNS_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// Consul waits at most ten minutes.
const WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const WITHOUT_FEATURE: &str = "not in this build; build with the cargo feature \"discovery\"";
const SOURCES: [&str; 5] = ["dns", "file", "consul", "kubernetes", "eureka"];

/// Where an upstream finds endpoints at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The upstream.
    pub upstream: String,
    pub source: Source,
    /// Endpoints are spoken to over TLS.
    pub tls: bool,
    /// The path of the endpoints without a trailing slash: `""` or `/base`.
    pub path: String,
    /// An answer without endpoints is applied. Default: the last endpoints stay.
    pub allow_empty: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Dns(Dns),
    File(FileList),
    Consul(Consul),
    Kubernetes(Kubernetes),
    Eureka(Eureka),
}

impl Source {
    /// The word of the configuration, logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Source::Dns(_) => "dns",
            Source::File(_) => "file",
            Source::Consul(_) => "consul",
            Source::Kubernetes(_) => "kubernetes",
            Source::Eureka(_) => "eureka",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    pub query: Query,
    /// Empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Of one query to one server.
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The addresses of a name, A and AAAA, with this port.
    Address { name: String, port: u16 },
    /// The SRV records of a name, and the addresses of their targets.
    Srv { name: String },
}

/// A file with a list of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    pub path: PathBuf,
    /// Between two checks for a change.
    pub interval_ms: u64,
}

/// An HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// `http://` or `https://`, without a trailing slash.
    pub url: String,
    /// The certificates that `https` is verified against; `None`: those of the system.
    pub ca: Option<PathBuf>,
    pub token: Option<Secret>,
}

/// Where a secret is read from, again for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    File(PathBuf),
    Env(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consul {
    pub api: Api,
    pub service: String,
    pub tag: Option<String>,
    pub datacenter: Option<String>,
    /// The longest that Consul holds a query back.
    pub wait_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    pub access: Access,
    pub service: String,
    /// `None`: that of the service account or of the kubeconfig, else `default`.
    pub namespace: Option<String>,
    /// `None`: the only port of the slice.
    pub port: Option<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The folder with `token`, `ca.crt` and `namespace`; `server` or, without it, the address in
    /// the environment of a pod.
    ServiceAccount {
        folder: PathBuf,
        server: Option<String>,
    },
    Kubeconfig(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    Name(String),
    Number(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eureka {
    pub api: Api,
    pub app: String,
    pub interval_ms: u64,
}

impl Discovery {
    /// The name that certificates are verified for, unless another is configured: endpoints are
    /// addresses, but the name that led to them is known.
    pub fn server_name(&self) -> Option<String> {
        match &self.source {
            Source::Dns(Dns { query: Query::Address { name, .. }, .. }) => Some(name.clone()),
            _ => None,
        }
    }

    /// One line for `check`, without secrets.
    pub fn describe(&self) -> String {
        let source = match &self.source {
            Source::Dns(Dns { query, .. }) => match query {
                Query::Address { name, port } => format!("addresses of {name}, port {port}"),
                Query::Srv { name } => format!("SRV records of {name}"),
            },
            Source::File(list) => list.path.display().to_string(),
            Source::Consul(consul) => format!("service {} at {}", consul.service, consul.api.url),
            Source::Kubernetes(Kubernetes { access, service, .. }) => match access {
                Access::Kubeconfig(path) => format!("service {service} with {}", path.display()),
                Access::ServiceAccount { folder, .. } => format!("service {service} with {}", folder.display()),
            },
            Source::Eureka(eureka) => format!("app {} at {}", eureka.app, eureka.api.url),
        };
        let tls = if self.tls { ", TLS" } else { "" };
        let empty = if self.allow_empty { ", may be empty" } else { "" };
        format!("{}: {source}{tls}{empty}", self.source.name())
    }
}

impl Builder<'_, '_> {
    /// The discovery of an upstream named `upstream`.
    pub fn discovery(&mut self, typed: &Section<file::Discover>, upstream: &str) -> Option<Discovery> {
        let at = typed.span();
        if !cfg!(feature = "discovery") {
            self.problems.add(at, "upstream.discover", WITHOUT_FEATURE);
            return None;
        }
        let one = typed.get_ref();
        let key = |name: &str| format!("upstream.discover.{name}");
        let tls = self.take(&key("tls"), &one.tls, false, value::flag);
        let path = self.take(&key("path"), &one.path, String::new(), path);
        let allow_empty = self.take(&key("allow_empty"), &one.allow_empty, false, value::flag);
        let present = [
            one.dns.is_some(),
            one.file.is_some(),
            one.consul.is_some(),
            one.kubernetes.is_some(),
            one.eureka.is_some(),
        ];
        if present.iter().filter(|present| **present).count() != 1 {
            let why = format!("expected exactly one of {}", SOURCES.join(", "));
            self.problems.add(at, "upstream.discover", &why);
            return None;
        }
        let source = None
            .or_else(|| one.dns.as_ref().and_then(|dns| self.dns(dns)).map(Source::Dns))
            .or_else(|| one.file.as_ref().and_then(|file| self.file_list(file)).map(Source::File))
            .or_else(|| one.consul.as_ref().and_then(|consul| self.consul(consul)).map(Source::Consul))
            .or_else(|| one.kubernetes.as_ref().and_then(|one| self.kubernetes(one)).map(Source::Kubernetes))
            .or_else(|| one.eureka.as_ref().and_then(|eureka| self.eureka(eureka)).map(Source::Eureka))?;
        if let (Source::File(_), Some(typed)) = (&source, &one.path) {
            let why = "not with file, whose endpoints are complete URLs; remove it";
            self.problems.add(typed.span(), &key("path"), why);
        }
        Some(Discovery { upstream: upstream.to_owned(), source, tls, path, allow_empty })
    }

    fn dns(&mut self, typed: &Section<file::discover::DiscoverDns>) -> Option<Dns> {
        let (one, at) = (typed.get_ref(), typed.span());
        let key = |name: &str| format!("upstream.discover.dns.{name}");
        let servers = one.servers.as_ref();
        let servers_key = key("servers");
        if let Some(list) = servers.filter(|list| !(1..=SERVERS_MAX).contains(&list.get_ref().len())) {
            self.problems.add(list.span(), &servers_key, &format!("expected 1 to {SERVERS_MAX} addresses"));
        }
        let servers = self.list(&servers_key, &one.servers, |v| server(text(v)?));
        let timeout = |v: &Value| value::duration(v, DNS_TIMEOUT, "");
        let timeout_ms = self.take(&key("timeout"), &one.timeout, 2_000, timeout);
        let name = self.read(&key("name"), &one.name, domain);
        let srv = self.read(&key("srv"), &one.srv, domain);
        let query = match (&one.name, &one.srv) {
            (Some(_), None) => {
                let port = self.required(&key("port"), &one.port, at, "port = 9000", port)?;
                Query::Address { name: name?, port }
            }
            (None, Some(_)) => {
                if let Some(port) = &one.port {
                    let why = "not with srv, whose records have ports; remove it";
                    self.problems.add(port.span(), &key("port"), why);
                }
                Query::Srv { name: srv? }
            }
            _ => {
                let why = "expected either name, with a port, or srv";
                self.problems.add(at, "upstream.discover.dns", why);
                return None;
            }
        };
        Some(Dns { query, servers, timeout_ms })
    }

    fn file_list(&mut self, typed: &Section<file::discover::DiscoverFile>) -> Option<FileList> {
        let one = typed.get_ref();
        let key = |name: &str| format!("upstream.discover.file.{name}");
        let interval = |v: &Value| value::duration(v, INTERVAL, "");
        let interval_ms = self.take(&key("interval"), &one.interval, 1_000, interval);
        let path = self.required(&key("path"), &one.path, typed.span(), "path = \"endpoints.toml\"", file_name)?;
        Some(FileList { path, interval_ms })
    }

    fn consul(&mut self, typed: &Section<file::discover::DiscoverConsul>) -> Option<Consul> {
        let (one, at) = (typed.get_ref(), typed.span());
        let key = |name: &str| format!("upstream.discover.consul.{name}");
        let url = self.take(&key("address"), &one.address, "http://127.0.0.1:8500".to_owned(), http_url);
        let ca = self.read(&key("ca"), &one.ca, file_name);
        let token = self.secret(&key("token"), &one.token_file, &one.token_env);
        let wait_ms = self.take(&key("wait"), &one.wait, 60_000, |v| value::duration(v, WAIT, ""));
        let tag = self.read(&key("tag"), &one.tag, word);
        let datacenter = self.read(&key("datacenter"), &one.datacenter, value::name);
        let service = self.required(&key("service"), &one.service, at, "service = \"chat\"", value::name)?;
        Some(Consul { api: Api { url, ca, token }, service, tag, datacenter, wait_ms })
    }

    fn kubernetes(&mut self, typed: &Section<file::discover::DiscoverKubernetes>) -> Option<Kubernetes> {
        let (one, at) = (typed.get_ref(), typed.span());
        let key = |name: &str| format!("upstream.discover.kubernetes.{name}");
        let folder = self.take(&key("service_account"), &one.service_account, SERVICE_ACCOUNT.into(), file_name);
        let server = self.read(&key("server"), &one.server, http_url);
        let access = match self.read(&key("kubeconfig"), &one.kubeconfig, file_name) {
            Some(path) => {
                for (name, typed) in [("service_account", &one.service_account), ("server", &one.server)] {
                    let why = "not with kubeconfig, which has it; remove one of the two";
                    let _ = typed.as_ref().map(|typed| self.problems.add(typed.span(), &key(name), why));
                }
                Access::Kubeconfig(path)
            }
            None => Access::ServiceAccount { folder, server },
        };
        let namespace = self.read(&key("namespace"), &one.namespace, value::name);
        let port = self.read(&key("port"), &one.port, named_port);
        let service = self.required(&key("service"), &one.service, at, "service = \"chat\"", value::name)?;
        Some(Kubernetes { access, service, namespace, port })
    }

    fn eureka(&mut self, typed: &Section<file::discover::DiscoverEureka>) -> Option<Eureka> {
        let (one, at) = (typed.get_ref(), typed.span());
        let key = |name: &str| format!("upstream.discover.eureka.{name}");
        let url = self.take(&key("address"), &one.address, "http://127.0.0.1:8761/eureka".to_owned(), http_url);
        let ca = self.read(&key("ca"), &one.ca, file_name);
        let token = self.secret(&key("token"), &one.token_file, &one.token_env);
        let interval = |v: &Value| value::duration(v, INTERVAL, "");
        let interval_ms = self.take(&key("interval"), &one.interval, 30_000, interval);
        let app = self.required(&key("app"), &one.app, at, "app = \"CHAT\"", value::name)?;
        Some(Eureka { api: Api { url, ca, token }, app, interval_ms })
    }

    /// A token in a file or an environment variable: `KEY_file` or `KEY_env`.
    fn secret(&mut self, key: &str, file: &Typed, env: &Typed) -> Option<Secret> {
        let from_file = self.read(&format!("{key}_file"), file, file_name).map(Secret::File);
        let from_env = self.read(&format!("{key}_env"), env, word).map(Secret::Env);
        if let (Some(_), Some(env)) = (file, env) {
            self.problems.add(env.span(), &format!("{key}_env"), "not with the file; remove one of the two");
        }
        from_file.or(from_env)
    }

    /// A key without a default. `example` is how to write it.
    fn required<T>(
        &mut self,
        key: &str,
        typed: &Typed,
        at: Range<usize>,
        example: &str,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<T> {
        if typed.is_none() {
            self.problems.add(at, key, &format!("missing; add for example {example}"));
        }
        self.read(key, typed, parse)
    }
}

fn file_name(value: &Value) -> Parsed<PathBuf> {
    match text(value)? {
        "" => Err("\"\" is not a file name".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

/// Printable text without spaces: a tag, the name of an environment variable.
fn word(value: &Value) -> Parsed<String> {
    let word = text(value)?;
    let fits = (1..=100).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| word.to_owned()).ok_or_else(|| format!("{} is not valid; expected one word", quoted(word)))
}

/// The path that is common to all endpoints, without a trailing slash.
fn path(value: &Value) -> Parsed<String> {
    endpoint::base_path(text(value)?, text(value)?)
}

fn domain(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    match endpoint::is_name(name) {
        true => Ok(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()),
        false => Err(format!("{} is not a DNS name; expected for example \"app.internal\"", quoted(name))),
    }
}

fn port(value: &Value) -> Parsed<u16> {
    let port = value.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    port.ok_or_else(|| format!("{} is not a port; expected 1 to 65535", shown(value)))
}

fn named_port(value: &Value) -> Parsed<Port> {
    match value.as_str() {
        Some(name) if !name.is_empty() => value::name(value).map(Port::Name),
        _ => port(value).map(Port::Number).map_err(|why| format!("{why}, or the name of a port")),
    }
}

/// A DNS server: an address, with port 53 unless another is there.
fn server(text: &str) -> Parsed<SocketAddr> {
    let address = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS_PORT));
    address.or_else(|| text.parse().ok()).filter(|address| address.port() != 0).ok_or_else(|| {
        format!("{} is not an address; expected for example \"127.0.0.1\" or \"127.0.0.1:5353\"", quoted(text))
    })
}

/// Without trailing slashes.
fn http_url(value: &Value) -> Parsed<String> {
    let url = text(value)?;
    let wrong = |why: &str| format!("{} {why}", quoted(url));
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or_else(|| wrong("is not an HTTP URL; expected http:// or https://"))?;
    if rest.contains(['@', '?', '#']) {
        // The URL is not repeated: it may have a password.
        return Err("has a user name, query or fragment; remove it, and name secrets by file".to_owned());
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let graphic = path.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>".contains(&b));
    if !graphic || endpoint::endpoint(&format!("ws://{authority}")).is_err() {
        return Err(wrong("has no valid host, port or path"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}
