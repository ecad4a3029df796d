//! Certificates with their keys, in files: reads them, and notices when the files change.

use super::der;
use crate::policy::tls::CertificateFiles;
use crate::text::hex;
use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use webpki::EndEntityCert;

/// A certificate chain with its key.
pub struct Certificate {
    pub key: Arc<CertifiedKey>,
    /// Its DNS names in lower case; a wildcard begins with `*.`.
    pub names: Vec<String>,
    /// Expiry, in seconds since the Unix epoch.
    pub not_after: u64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Whether a certificate chain and its key, both in PEM, can be presented to a server.
pub fn check_identity(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| format!("client certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("client key: {error}"))?;
    let pair = CertifiedKey::from_der(chain, key, &default_provider());
    pair.map(drop).map_err(|error| format!("client certificate and key cannot be used: {error}"))
}

impl Certificate {
    /// Reads certificate and key, which must match. An error names the file.
    fn read(files: &CertificateFiles) -> Result<Certificate, String> {
        let (chain, key) = (read_chain(&files.cert)?, read_key(&files.key)?);
        Certificate::new(chain, key, files)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        files: &CertificateFiles,
    ) -> Result<Certificate, String> {
        let (cert_path, key_path) = (files.cert.display(), files.key.display());
        let first = chain.first().ok_or_else(|| format!("{cert_path} contains no certificate"))?;
        let info = CertInfo::of(first).ok_or_else(|| format!("{cert_path} contains a malformed certificate"))?;
        let names = names_of(first).ok_or_else(|| format!("{cert_path} contains a malformed certificate"))?;
        let mut key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{key_path} is not the key of the certificate in {cert_path}")
            }
            _ => format!("{key_path} contains an unusable key: {error}"),
        })?;
        if let Some(path) = &files.ocsp {
            key.ocsp = Some(fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?);
        }
        Ok(Certificate { key: Arc::new(key), names, not_after: info.not_after })
    }
}

/// The certificates of a PEM file, in order; at least one.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| format!("{} is not a valid PEM file: {error}", path.display()))?;
    match chain.is_empty() {
        true => Err(format!("{} contains no certificate in PEM", path.display())),
        false => Ok(chain),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let path = path.display();
        format!("{path} contains no unencrypted private key in PEM")
    })
}

/// `None` for a malformed certificate.
fn names_of(der: &CertificateDer<'_>) -> Option<Vec<String>> {
    let cert = EndEntityCert::try_from(der).ok()?;
    Some(cert.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// The subject, fingerprint and expiry of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// In the form of RFC 4514.
    pub subject: String,
    /// SHA-256 of the certificate, in lower-case hex.
    pub sha256: String,
    /// Expiry, in seconds since the Unix epoch.
    pub not_after: u64,
}

impl CertInfo {
    pub fn of(der: &CertificateDer<'_>) -> Option<CertInfo> {
        let der::Parsed { subject, not_after } = der::read(der)?;
        Some(CertInfo { subject, sha256: hex(digest::digest(&digest::SHA256, der).as_ref()), not_after })
    }
}

/// Identifies a version of a file; `None` if it cannot be read.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

/// A certificate and key in files, and their last valid version.
#[derive(Debug)]
pub struct WatchedCert {
    pub files: CertificateFiles,
    current: RwLock<Arc<Certificate>>,
    seen: Mutex<Vec<Stamp>>,
}

impl WatchedCert {
    pub fn read(files: &CertificateFiles) -> Result<Arc<WatchedCert>, String> {
        // Stamped before reading: a write in between is noticed at the next check.
        let seen = Mutex::new(stamps(files));
        let current = RwLock::new(Arc::new(Certificate::read(files)?));
        Ok(Arc::new(WatchedCert { files: files.clone(), current, seen }))
    }

    pub fn current(&self) -> Arc<Certificate> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again if they have changed; `None` if not. After an error the old version
    /// stays in use until the files change again.
    pub fn refresh(&self) -> Option<Result<(), String>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if *seen == now {
            return None;
        }
        *seen = now;
        Some(Certificate::read(&self.files).map(|certificate| {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
        }))
    }
}

fn stamps(files: &CertificateFiles) -> Vec<Stamp> {
    [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()].into_iter().flatten().map(|path| stamp(path)).collect()
}
