//! TLS settings of listeners and upstreams. Files are only named here; `tls` reads them at start,
//! reload and `check`.

use super::access::Lists;
use super::build::Builder;
use super::file::{self, Typed};
use super::value::{self, Parsed, quoted, text};
use super::{Listener, endpoint};
use crate::policy::tls::{CertificateFiles, ClientAuth, ListenerTls, Roots, TlsVersion, UpstreamTls};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use toml::Value;

const HTTPS_PORT: u16 = 443;

impl Builder<'_, '_> {
    pub fn listener(&mut self, typed: &file::Listener, addr: SocketAddr, at: Range<usize>) -> Listener {
        let trusted_proxies = self.list("listener.trusted_proxies", &typed.trusted_proxies, value::network);
        let tls = typed.tls.as_ref().map(|tls| self.listener_tls(tls, at));
        let redirect = self.take("listener.redirect", &typed.redirect, None, redirect);
        if let (Some(redirect), Some(_), true) = (&typed.redirect, redirect, tls.is_some()) {
            let why = "requires a listener without TLS; move it there, or remove tls";
            self.problems.add(redirect.span(), "listener.redirect", why);
        }
        let (allow, deny, deny_file) = (&typed.allow, &typed.deny, &typed.deny_file);
        let access = self.access("listener", &Lists { allow, deny, deny_file });
        let proxy_protocol = self.take("listener.proxy_protocol", &typed.proxy_protocol, false, value::flag);
        if let (true, true, Some(at)) = (proxy_protocol, trusted_proxies.is_empty(), &typed.proxy_protocol) {
            let why = "requires trusted_proxies, the only peers whose PROXY header is believed; \
                       add for example trusted_proxies = [\"10.0.0.0/8\"]";
            self.problems.add(at.span(), "listener.proxy_protocol", why);
        }
        let limits = self.listener_limits(&typed.limits);
        Listener { addr, trusted_proxies, access, limits, proxy_protocol, tls, redirect }
    }

    fn listener_tls(&mut self, typed: &file::ListenerTls, at: Range<usize>) -> ListenerTls {
        let key = "listener.tls.certificates";
        let mut certificates = Vec::new();
        for section in &typed.certificates {
            certificates.extend(self.pair(key, section.get_ref(), section.span()));
        }
        if typed.certificates.is_empty() {
            let why = "missing; add for example certificates = [{ cert = \"/etc/tls/chain.pem\", \
                       key = \"/etc/tls/key.pem\" }]";
            self.problems.add(at.clone(), key, why);
        }
        ListenerTls {
            certificates,
            min_version: self.version("listener.tls.min_version", &typed.min_version),
            client_auth: self.client_auth(typed, at),
            tickets: self.take("listener.tls.tickets", &typed.tickets, true, value::flag),
        }
    }

    fn client_auth(&mut self, typed: &file::ListenerTls, at: Range<usize>) -> ClientAuth {
        #[derive(Clone, Copy, PartialEq)]
        enum Auth {
            Off,
            Optional,
            Required,
        }
        let words = [("off", Auth::Off), ("optional", Auth::Optional), ("required", Auth::Required)];
        let key = "listener.tls.client_auth";
        let auth = self.take(key, &typed.client_auth, Auth::Off, |v| value::word(v, &words));
        let ca = self.read("listener.tls.client_ca", &typed.client_ca, file);
        match (auth, ca) {
            (Auth::Off, _) => ClientAuth::Off,
            (Auth::Optional, Some(ca)) => ClientAuth::Optional(ca),
            (Auth::Required, Some(ca)) => ClientAuth::Required(ca),
            (_, None) => {
                let at = typed.client_auth.as_ref().map_or(at, |typed| typed.span());
                let why = "requires client_ca, a file with the CA certificates";
                self.problems.add(at, key, why);
                ClientAuth::Off
            }
        }
    }

    pub fn upstream_tls(&mut self, typed: &file::UpstreamTls, at: Range<usize>) -> UpstreamTls {
        let default = UpstreamTls::default();
        let ca = self.read("upstream.tls.ca", &typed.ca, file);
        let key = "upstream.tls.insecure_skip_verify";
        let skip = self.take(key, &typed.insecure_skip_verify, false, value::flag);
        if let (Some(typed), true, true) = (&typed.insecure_skip_verify, skip, ca.is_some()) {
            self.problems.add(typed.span(), key, "conflicts with ca; remove one of the two");
        }
        let identity = match (&typed.cert, &typed.key) {
            (None, None) => None,
            _ => self.pair("upstream.tls", &file::Certificate::of(typed), at),
        };
        UpstreamTls {
            roots: match (ca, skip) {
                (_, true) => Roots::Unverified,
                (Some(path), false) => Roots::File(path),
                (None, false) => Roots::System,
            },
            server_name: self.read("upstream.tls.server_name", &typed.server_name, server_name),
            min_version: self.version("upstream.tls.min_version", &typed.min_version),
            identity,
            resumption: self.take("upstream.tls.resumption", &typed.resumption, default.resumption, value::flag),
        }
    }

    fn version(&mut self, key: &str, typed: &Typed) -> TlsVersion {
        let words = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
        self.take(key, typed, TlsVersion::default(), |v| value::word(v, &words))
    }

    fn pair(&mut self, key: &str, typed: &file::Certificate, at: Range<usize>) -> Option<CertificateFiles> {
        let cert = self.read(&format!("{key}.cert"), &typed.cert, file);
        let private = self.read(&format!("{key}.key"), &typed.key, file);
        let ocsp = self.read(&format!("{key}.ocsp"), &typed.ocsp, file);
        for (name, typed) in [("cert", &typed.cert), ("key", &typed.key)] {
            if typed.is_none() {
                self.problems.add(at.clone(), &format!("{key}.{name}"), "missing; cert and key are required together");
            }
        }
        Some(CertificateFiles { cert: cert?, key: private?, ocsp })
    }
}

fn file(value: &Value) -> Parsed<PathBuf> {
    match text(value)? {
        "" => Err("\"\" is not a file name".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn redirect(value: &Value) -> Parsed<Option<u16>> {
    let text = text(value)?;
    if text == "off" {
        return Ok(None);
    }
    let port = match text.strip_prefix("https") {
        Some("") => Some(HTTPS_PORT),
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        None => None,
    };
    port.map(Some).ok_or_else(|| {
        format!("{} is not valid; expected \"https\", \"https:8443\" for another port, or \"off\"", quoted(text))
    })
}

fn server_name(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    let address = name.parse::<std::net::IpAddr>().is_ok();
    match address || endpoint::is_name(name) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(format!("{} is not a valid server name", quoted(name))),
    }
}
