//! Certificates and keys in files: read whole pairs, know their names and their end, notice when the files change.

use super::der::{self, Words};
use crate::policy::tls::CertificateFiles;
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
    /// DNS names that it is for, in lower case; a wildcard has `*.` before it.
    pub names: Vec<String>,
    /// The end of its validity, in seconds since the Unix epoch.
    pub not_after: u64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a pair; it is whole or an error, which names the file.
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
        let first = chain.first().ok_or_else(|| format!("{cert_path} holds no certificate"))?;
        let facts =
            CertInfo::of(first).ok_or_else(|| format!("{cert_path} holds a certificate that cannot be read"))?;
        let names = names_of(first).ok_or_else(|| format!("{cert_path} holds a certificate that cannot be read"))?;
        let mut key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{key_path} is not the key of the certificate in {cert_path}")
            }
            _ => format!("{key_path} holds a key that cannot be used: {error}"),
        })?;
        if let Some(path) = &files.ocsp {
            key.ocsp = Some(fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?);
        }
        Ok(Certificate { key: Arc::new(key), names, not_after: facts.not_after })
    }
}

/// The certificates of a PEM file, in its order; at least one.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| format!("{} is no good PEM file: {error}", path.display()))?;
    match chain.is_empty() {
        true => Err(format!("{} holds no certificate in PEM", path.display())),
        false => Ok(chain),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let path = path.display();
        format!("{path} holds no private key in PEM; one that is encrypted must be decrypted first")
    })
}

/// `None` for what is no certificate.
fn names_of(der: &CertificateDer<'_>) -> Option<Vec<String>> {
    let cert = EndEntityCert::try_from(der).ok()?;
    Some(cert.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// As RFC 4514 writes it.
    pub subject: String,
    /// SHA-256 of the certificate, in lower-case hex.
    pub sha256: String,
    /// In seconds since the Unix epoch.
    pub not_after: u64,
}

impl CertInfo {
    pub fn of(der: &CertificateDer<'_>) -> Option<CertInfo> {
        let Words { subject, not_after } = der::read(der)?;
        Some(CertInfo { subject, sha256: der::hex(digest::digest(&digest::SHA256, der).as_ref()), not_after })
    }
}

/// What tells one state of a file from another.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

/// A pair of files, and what they held when they last fitted each other.
#[derive(Debug)]
pub struct WatchedCert {
    pub files: CertificateFiles,
    current: RwLock<Arc<Certificate>>,
    seen: Mutex<Vec<Stamp>>,
}

impl WatchedCert {
    pub fn read(files: &CertificateFiles) -> Result<Arc<WatchedCert>, String> {
        // Stamped first: what is written meanwhile is looked at again.
        let seen = Mutex::new(stamps(files));
        let current = RwLock::new(Arc::new(Certificate::read(files)?));
        Ok(Arc::new(WatchedCert { files: files.clone(), current, seen }))
    }

    pub fn current(&self) -> Arc<Certificate> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again if they have changed: `None` if not, an error where the new ones are no pair. Then the old one
    /// stays, until they change once more.
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
