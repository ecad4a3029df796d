//! The self-signed certificate of one demo run.

use crate::config::CertificateFiles;
use crate::tls;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// A certificate and key in a directory that only this user can read; removed on drop.
pub struct TemporaryCert {
    pub addr: SocketAddr,
    pub files: CertificateFiles,
    dir: PathBuf,
}

impl TemporaryCert {
    pub fn new(addr: SocketAddr) -> io::Result<TemporaryCert> {
        let (cert_pem, key_pem) = tls::self_signed(addr.ip(), SystemTime::now()).map_err(io::Error::other)?;
        let dir = std::env::temp_dir().join(format!("framegate-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let files = CertificateFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), ocsp: None };
        // From here on the directory is removed, even if writing fails.
        let cert = TemporaryCert { addr, files, dir };
        fs::write(&cert.files.cert, cert_pem)?;
        fs::write(&cert.files.key, key_pem)?;
        Ok(cert)
    }
}

impl Drop for TemporaryCert {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            ::log::warn!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
