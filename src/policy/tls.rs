//! TLS as it is wanted: which files, which versions, who is trusted. Values only; what is made of
//! them is the business of `tls`.

use std::path::PathBuf;

/// A certificate chain and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// An OCSP response in DER, to be stapled.
    pub ocsp: Option<PathBuf>,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

/// What a listener does with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Chosen by the name that the client asks for; the first is for all other names. Never empty.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    pub client_auth: ClientAuth,
    /// Clients may resume.
    pub tickets: bool,
}

/// Whether clients show a certificate, and which authorities it may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    Off,
    Optional(PathBuf),
    Required(PathBuf),
}

/// How the endpoints of a group are spoken to where their URL says `wss`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    pub roots: Roots,
    /// Asked for and verified; `None` is the host of the URL.
    pub server_name: Option<String>,
    pub min_version: TlsVersion,
    /// Shown where the upstream asks for a certificate.
    pub identity: Option<CertificateFiles>,
    pub resumption: bool,
}

impl Default for UpstreamTls {
    fn default() -> UpstreamTls {
        let (min_version, roots) = (TlsVersion::default(), Roots::System);
        UpstreamTls { roots, server_name: None, min_version, identity: None, resumption: true }
    }
}

/// Whose word is taken for the name of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    System,
    File(PathBuf),
    /// None: any certificate is accepted.
    Unverified,
}
