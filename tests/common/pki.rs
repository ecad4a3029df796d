//! Certificates for the tests of one process: a CA, and valid and invalid certificates of it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// The CA that tests trust.
pub static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

pub struct Pki {
    pub folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key in PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    fn new() -> Pki {
        let folder = super::temp_path("pki");
        std::fs::create_dir(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "framegate tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), cert.pem()).unwrap();
        let pki = Pki { folder, issuer: Issuer::new(params, key) };
        pki.sign("server", &["localhost", "127.0.0.1"], |_| {});
        pki
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// For `localhost` and `127.0.0.1`.
    pub fn server(&self) -> Pair {
        self.pair("server")
    }

    fn pair(&self, name: &str) -> Pair {
        Pair { cert: self.folder.join(format!("{name}.pem")), key: self.folder.join(format!("{name}.key")) }
    }

    /// A new pair of files, signed by the CA; `change` may make it invalid.
    pub fn sign(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let pair = self.pair(name);
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        std::fs::write(&pair.cert, cert.pem()).unwrap();
        pair
    }

    pub fn expired(&self, name: &str, names: &[&str]) -> Pair {
        self.sign(name, names, |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        })
    }

    /// A client certificate.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(name, &[], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        roots
    }
}

impl Pair {
    pub fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![CertificateDer::from_pem_file(&self.cert).unwrap()], PrivateKeyDer::from_pem_file(&self.key).unwrap())
    }

    /// The entry for a `certificates` list.
    pub fn toml(&self) -> String {
        format!("{{ cert = {:?}, key = {:?} }}", self.cert, self.key)
    }

    /// Replaces these files by another pair, the certificate first.
    pub fn replace(&self, by: &Pair) {
        for (from, to) in [(&by.cert, &self.cert), (&by.key, &self.key)] {
            replace(from, to);
        }
    }
}

/// Replaces a file as ACME clients do, by renaming a new one.
pub fn replace(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(&new, to).unwrap();
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}
