//! The rustls configurations that the connections of a listener, or to an upstream, share. Built
//! from a snapshot, either completely or not at all.

use super::certificate::{Certificate, WatchedCert, read_chain};
use super::cipher::provider;
use super::hello;
use super::tickets::{TicketKeys, Tickets};
use super::{Failure, Tls};
use crate::config::Snapshot;
use crate::policy::endpoint::{Address, Endpoint};
use crate::policy::tls::{CertificateFiles, ClientAuth, ListenerTls, Roots, TlsVersion, UpstreamTls};
use crate::policy::upstream::Upstream;
use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

const ALPN: &[u8] = b"http/1.1";
/// One per handshake: a client that resumes receives the next one.
const TICKETS: usize = 1;
/// Of the tickets that a client offers, so many are looked at: one is the rule.
const TICKETS_LOOKED_AT: usize = 2;
/// TLS sessions kept for resumption, per upstream.
const RESUMED_MAX: usize = 256;

/// The TLS configurations of a snapshot.
#[derive(Debug, Default)]
pub struct TlsConfigs {
    servers: Vec<(SocketAddr, Server)>,
    /// By the name of the upstream; only of those that use TLS.
    clients: HashMap<String, Arc<ClientConfig>>,
    certificates: Vec<Arc<WatchedCert>>,
}

/// A listener's configuration.
#[derive(Debug)]
struct Server {
    config: Arc<ServerConfig>,
    resolver: Arc<CertResolver>,
}

/// Makes the server side of TLS connections of one listener.
#[derive(Debug, Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    pub fn accept(&self) -> Result<Tls, Failure> {
        Tls::server(&self.0)
    }

    /// Whether the ClientHello that `bytes` begin with offers a ticket that our keys open: not
    /// whether it will be accepted. `None` while it is incomplete.
    pub fn recognizes(&self, bytes: &[u8]) -> Option<bool> {
        let mut offered = hello::tickets(bytes)?.into_iter().take(TICKETS_LOOKED_AT);
        Some(offered.any(|ticket| self.0.ticketer.decrypt(ticket).is_some()))
    }
}

impl TlsConfigs {
    /// Reads all files of a snapshot.
    ///
    /// # Errors
    /// One sentence for each listener and upstream whose files cannot be used.
    pub fn load(snapshot: &Snapshot, keys: &Arc<TicketKeys>) -> Result<TlsConfigs, Vec<String>> {
        let (mut configs, mut errors) = (TlsConfigs::default(), Vec::new());
        for listener in &snapshot.listeners {
            let Some(tls) = &listener.tls else { continue };
            match configs.server(tls, keys) {
                Ok(server) => configs.servers.push((listener.addr, server)),
                Err(e) => errors.push(format!("listener {}: {e}", listener.addr)),
            }
        }
        for upstream in &snapshot.upstreams {
            match configs.client(upstream, snapshot.uses_tls(upstream)) {
                Ok(Some(config)) => drop(configs.clients.insert(upstream.name.clone(), config)),
                Ok(None) => {}
                Err(e) => errors.push(format!("upstream \"{}\": {e}", upstream.name)),
            }
        }
        if errors.is_empty() { Ok(configs) } else { Err(errors) }
    }

    /// For the listener at that address; `None` for a plain one.
    pub fn acceptor(&self, addr: SocketAddr) -> Option<Acceptor> {
        let server = self.servers.iter().find(|(of, _)| *of == addr);
        server.map(|(_, server)| Acceptor(Arc::clone(&server.config)))
    }

    /// The client side of a TLS connection to an endpoint of an upstream.
    pub fn connect(&self, upstream: &Upstream, endpoint: &Endpoint) -> Result<Tls, Failure> {
        let config = self.clients.get(&upstream.name).ok_or(Failure::Internal)?;
        let name = server_name(endpoint, &upstream.tls).map_err(|_| Failure::Internal)?;
        Tls::client(config, &name)
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.clients.is_empty()
    }

    /// Reloads certificates whose files have changed. Returns a message for each, or an error if
    /// the new version cannot be used.
    pub fn refresh(&self) -> Vec<Result<String, String>> {
        let mut results = Vec::new();
        for certificate in &self.certificates {
            let cert = certificate.files.cert.display();
            match certificate.refresh() {
                None => continue,
                Some(Ok(())) => results.push(Ok(format!("reloaded certificate {cert}"))),
                Some(Err(e)) => {
                    results.push(Err(format!("cannot reload certificate {cert}, keeping the old one: {e}")))
                }
            }
        }
        if results.iter().any(Result::is_ok) {
            self.servers.iter().for_each(|(_, server)| server.resolver.refresh());
        }
        results
    }

    /// Certificate files, each with its expiry in seconds since the Unix epoch.
    pub fn certificates(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.certificates.iter().map(|watched| (watched.files.cert.as_path(), watched.current().not_after))
    }

    /// The certificate in `files`, read once even if several listeners name it.
    fn certificate(&mut self, files: &CertificateFiles) -> Result<Arc<WatchedCert>, String> {
        if let Some(watched) = self.certificates.iter().find(|watched| watched.files == *files) {
            return Ok(Arc::clone(watched));
        }
        let watched = WatchedCert::read(files)?;
        self.certificates.push(Arc::clone(&watched));
        Ok(watched)
    }

    fn server(&mut self, tls: &ListenerTls, keys: &Arc<TicketKeys>) -> Result<Server, String> {
        let certificates: Result<Vec<_>, _> = tls.certificates.iter().map(|files| self.certificate(files)).collect();
        let resolver = Arc::new(CertResolver::new(certificates?));
        let provider = Arc::new(provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(tls.min_version))
            .map_err(|e| e.to_string())?;
        let (ca, required) = match &tls.client_auth {
            ClientAuth::Off => (None, false),
            ClientAuth::Optional(ca) => (Some(ca), false),
            ClientAuth::Required(ca) => (Some(ca), true),
        };
        let mut context = Context::new(&SHA256);
        context.update(&[u8::from(required)]);
        let builder = match ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = read_chain(path)?;
                authorities.iter().for_each(|der| context.update(der));
                let roots = Arc::new(roots_of(authorities, path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| format!("{}: {e}", path.display()))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::<CertResolver>::clone(&resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = if tls.tickets { TICKETS } else { 0 };
        config.max_early_data_size = 0;
        if tls.tickets {
            let context = context.finish().as_ref().to_vec();
            config.ticketer = Arc::new(Tickets { keys: Arc::clone(keys), context });
        }
        Ok(Server { config: Arc::new(config), resolver })
    }

    fn client(&mut self, upstream: &Upstream, used: bool) -> Result<Option<Arc<ClientConfig>>, String> {
        let (endpoints, tls) = (upstream.endpoints(), &upstream.tls);
        if !used {
            return Ok(None);
        }
        let mut secure = endpoints.iter().filter(|endpoint| endpoint.tls);
        secure.try_for_each(|endpoint| server_name(endpoint, tls).map(drop))?;
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(tls.min_version))
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier(tls, &provider)?);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(files) => builder.with_client_cert_resolver(Arc::new(ClientCert(self.certificate(files)?))),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = match tls.resumption {
            true => Resumption::in_memory_sessions(RESUMED_MAX),
            false => Resumption::disabled(),
        };
        Ok(Some(Arc::new(config)))
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min {
        TlsVersion::V1_2 => &ALL,
        TlsVersion::V1_3 => &ALL[..1],
    }
}

/// The name that the certificate of an endpoint must be valid for.
fn server_name(endpoint: &Endpoint, tls: &UpstreamTls) -> Result<ServerName<'static>, String> {
    let host = match (&tls.server_name, &endpoint.address) {
        (Some(name), _) => name.as_str(),
        (None, Address::Tcp(addr)) => return Ok(ServerName::from(addr.ip())),
        (None, Address::Name(name)) => name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host),
        (None, Address::Unix(_)) => return Err(format!("{} needs tls.server_name", endpoint.url)),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| format!("\"{host}\" is not a valid server name; set tls.server_name"))
}

fn roots_of(certificates: Vec<CertificateDer<'static>>, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in certificates {
        roots
            .add(der)
            .map_err(|e| format!("{} contains a certificate that cannot be a trust anchor: {e}", path.display()))?;
    }
    Ok(roots)
}

fn verifier(tls: &UpstreamTls, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let roots = match &tls.roots {
        Roots::Unverified => return Ok(Arc::new(Unverified(Arc::clone(provider)))),
        Roots::File(path) => roots_of(read_chain(path)?, path)?,
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
                return Err(format!("the system has no root certificates{why}; install them, or set tls.ca"));
            }
            roots
        }
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map(|verifier| verifier as Arc<dyn ServerCertVerifier>).map_err(|e| e.to_string())
}

/// Selects a certificate by SNI, or the first one.
#[derive(Debug)]
struct CertResolver {
    certificates: Vec<Arc<WatchedCert>>,
    table: RwLock<Arc<Table>>,
}

/// A name can have several certificates, with different key types: a client may support only one of
/// them.
#[derive(Debug, Default)]
struct Table {
    /// By name, or by what follows the `*` of a wildcard.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
}

impl CertResolver {
    fn new(certificates: Vec<Arc<WatchedCert>>) -> CertResolver {
        let table = RwLock::new(Arc::new(Table::of(&certificates)));
        CertResolver { certificates, table }
    }

    fn refresh(&self) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table::of(&self.certificates));
    }
}

impl Table {
    fn of(watched: &[Arc<WatchedCert>]) -> Table {
        let mut table = Table::default();
        let certificates: Vec<Arc<Certificate>> = watched.iter().map(|watched| watched.current()).collect();
        for certificate in &certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix('*') {
                    Some(suffix) => (&mut table.wildcard, suffix),
                    None => (&mut table.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        // A certificate for the same names as the first serves clients that do not support its key
        // type.
        let first = certificates.first();
        let same = |other: &&Arc<Certificate>| first.is_some_and(|first| first.names == other.names);
        table.first = certificates.iter().filter(same).map(|certificate| Arc::clone(&certificate.key)).collect();
        table
    }

    fn keys(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // RFC 9525 section 6.3: a wildcard matches one whole label.
        let wildcard = || name.find('.').and_then(|dot| self.wildcard.get(name.get(dot..)?));
        self.exact.get(&name).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let keys = hello.server_name().map_or(table.first.as_slice(), |name| table.keys(name));
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(usable).or(keys.first()).cloned()
    }
}

/// The certificate presented to an upstream.
#[derive(Debug)]
struct ClientCert(Arc<WatchedCert>);

impl ResolvesClientCert for ClientCert {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = Arc::clone(&self.0.current().key);
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Accepts any certificate, but still verifies that the peer has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
