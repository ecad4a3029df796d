//! What all connections of a listener, or to an upstream, share: made from the snapshot, as a whole or not at all.

use super::certificate::{Certificate, WatchedCert, read_chain};
use super::cipher::provider;
use super::tickets::{TicketKeys, Tickets};
use crate::config::Snapshot;
use crate::policy::balance::{Endpoint, Group, Place};
use crate::policy::tls::{CertificateFiles, ClientAuth, ListenerTls, Roots, TlsVersion, UpstreamTls};
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
/// A reconnecting client needs one; it gets another one then.
const TICKETS: usize = 1;
/// Sessions of upstreams that are kept for resumption, for each group.
const RESUMED_MAX: usize = 256;

/// Everything of TLS that a snapshot asks for.
#[derive(Debug, Default)]
pub struct TlsConfigs {
    servers: Vec<(SocketAddr, Server)>,
    /// By index of the group; empty where none has TLS.
    clients: Vec<Option<Client>>,
    slots: Vec<Arc<WatchedCert>>,
}

/// Of one listener.
#[derive(Debug)]
struct Server {
    config: Arc<ServerConfig>,
    chooser: Arc<CertResolver>,
}

/// Of one upstream group.
#[derive(Debug)]
struct Client {
    config: Arc<ClientConfig>,
    /// By endpoint; `None` for one without TLS.
    names: Vec<Option<ServerName<'static>>>,
}

impl TlsConfigs {
    /// All problems are told at once, each in one sentence that names the file.
    pub fn load(snapshot: &Snapshot, keys: &Arc<TicketKeys>) -> Result<TlsConfigs, Vec<String>> {
        let (mut store, mut problems) = (TlsConfigs::default(), Vec::new());
        for listener in &snapshot.listeners {
            let Some(tls) = &listener.tls else { continue };
            match store.server(tls, keys) {
                Ok(server) => store.servers.push((listener.addr, server)),
                Err(e) => problems.push(format!("listener {}: {e}", listener.addr)),
            }
        }
        for group in &snapshot.groups {
            let client = store.client(group).map_err(|e| problems.push(format!("upstream \"{}\": {e}", group.name)));
            store.clients.push(client.ok().flatten());
        }
        if store.clients.iter().all(Option::is_none) {
            store.clients.clear();
        }
        if problems.is_empty() { Ok(store) } else { Err(problems) }
    }

    /// Of the listener at that address; `None` for a plain one.
    pub fn listener(&self, addr: SocketAddr) -> Option<&Arc<ServerConfig>> {
        self.servers.iter().find(|(of, _)| *of == addr).map(|(_, server)| &server.config)
    }

    /// To an endpoint of a group; `None` for a plain one.
    pub fn upstream(&self, group: usize, endpoint: usize) -> Option<(&Arc<ClientConfig>, &ServerName<'static>)> {
        let client = self.clients.get(group)?.as_ref()?;
        Some((&client.config, client.names.get(endpoint)?.as_ref()?))
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.clients.is_empty()
    }

    /// Takes over what has changed in the files: a sentence for each pair that did, an error where the new one is not whole.
    pub fn refresh(&self) -> Vec<Result<String, String>> {
        let mut told = Vec::new();
        for slot in &self.slots {
            let cert = slot.files.cert.display();
            match slot.refresh() {
                None => continue,
                Some(Ok(())) => told.push(Ok(format!("took over the new certificate in {cert}"))),
                Some(Err(e)) => told.push(Err(format!("keeps the old certificate of {cert}: {e}"))),
            }
        }
        if told.iter().any(Result::is_ok) {
            self.servers.iter().for_each(|(_, server)| server.chooser.refresh());
        }
        told
    }

    /// Each certificate's file, and the end of its validity in seconds since the Unix epoch.
    pub fn certificates(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.slots.iter().map(|slot| (slot.files.cert.as_path(), slot.current().not_after))
    }

    fn slot(&mut self, files: &CertificateFiles) -> Result<Arc<WatchedCert>, String> {
        if let Some(slot) = self.slots.iter().find(|slot| slot.files == *files) {
            return Ok(Arc::clone(slot));
        }
        let slot = WatchedCert::read(files)?;
        self.slots.push(Arc::clone(&slot));
        Ok(slot)
    }

    fn server(&mut self, tls: &ListenerTls, keys: &Arc<TicketKeys>) -> Result<Server, String> {
        let slots: Result<Vec<_>, _> = tls.certificates.iter().map(|files| self.slot(files)).collect();
        let chooser = Arc::new(CertResolver::new(slots?));
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
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<CertResolver>::clone(&chooser);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = if tls.tickets { TICKETS } else { 0 };
        config.max_early_data_size = 0;
        if tls.tickets {
            let context = context.finish().as_ref().to_vec();
            config.ticketer = Arc::new(Tickets { keys: Arc::clone(keys), context });
        }
        Ok(Server { config: Arc::new(config), chooser })
    }

    fn client(&mut self, group: &Group) -> Result<Option<Client>, String> {
        if !group.endpoints.iter().any(|endpoint| endpoint.tls) {
            return Ok(None);
        }
        let tls = &group.tls;
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(tls.min_version))
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier(tls, &provider)?);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(files) => builder.with_client_cert_resolver(Arc::new(Identity(self.slot(files)?))),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = match tls.resumption {
            true => Resumption::in_memory_sessions(RESUMED_MAX),
            false => Resumption::disabled(),
        };
        let names: Result<Vec<_>, _> = group.endpoints.iter().map(|endpoint| name_of(endpoint, tls)).collect();
        Ok(Some(Client { config: Arc::new(config), names: names? }))
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min {
        TlsVersion::V1_2 => &ALL,
        TlsVersion::V1_3 => &ALL[..1],
    }
}

fn name_of(endpoint: &Endpoint, tls: &UpstreamTls) -> Result<Option<ServerName<'static>>, String> {
    if !endpoint.tls {
        return Ok(None);
    }
    let host = match (&tls.server_name, &endpoint.place) {
        (Some(name), _) => name.clone(),
        (None, Place::Tcp(addr)) => return Ok(Some(ServerName::from(addr.ip()))),
        (None, Place::Name(name)) => name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host).to_owned(),
        (None, Place::Unix(_)) => return Err(format!("{} needs tls.server_name", endpoint.url)),
    };
    let host = host.strip_suffix('.').map_or(host.clone(), str::to_owned);
    let name = ServerName::try_from(host.clone());
    name.map(Some).map_err(|_| format!("\"{host}\" is no name that a certificate can be for; set tls.server_name"))
}

fn roots_of(certificates: Vec<CertificateDer<'static>>, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in certificates {
        roots.add(der).map_err(|e| format!("{} holds a certificate that cannot be a root: {e}", path.display()))?;
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

/// Which certificate a client gets: that of the name it asks for, else the first.
#[derive(Debug)]
struct CertResolver {
    slots: Vec<Arc<WatchedCert>>,
    table: RwLock<Arc<Table>>,
}

/// Several for one name where they differ in their kind of key: a client may know only one.
#[derive(Debug, Default)]
struct Table {
    /// By name, or by what follows the `*` of a wildcard.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
}

impl CertResolver {
    fn new(slots: Vec<Arc<WatchedCert>>) -> CertResolver {
        let table = RwLock::new(Arc::new(Table::of(&slots)));
        CertResolver { slots, table }
    }

    fn refresh(&self) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table::of(&self.slots));
    }
}

impl Table {
    fn of(slots: &[Arc<WatchedCert>]) -> Table {
        let mut table = Table::default();
        let certificates: Vec<Arc<Certificate>> = slots.iter().map(|slot| slot.current()).collect();
        for certificate in &certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix('*') {
                    Some(suffix) => (&mut table.wildcard, suffix),
                    None => (&mut table.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        // A default of another kind of key for the same names serves clients that do not know the first.
        let first = certificates.first();
        let same = |other: &&Arc<Certificate>| first.is_some_and(|first| first.names == other.names);
        table.first = certificates.iter().filter(same).map(|certificate| Arc::clone(&certificate.key)).collect();
        table
    }

    fn keys(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // RFC 9525 section 6.3: a wildcard stands for one whole label.
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

/// The certificate that we show to an upstream.
#[derive(Debug)]
struct Identity(Arc<WatchedCert>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = Arc::clone(&self.0.current().key);
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate, but still checks that the peer has its key.
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
