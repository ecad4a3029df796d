//! URLs of upstream endpoints: `ws://host:port/base` or `http://`, which mean the same, `wss://` or
//! `https://` with TLS, and `ws+unix:/run/app.sock`, optionally followed by `:/base`. URLs of HTTP
//! servers that are asked.

use super::value::{Parsed, quoted};
use crate::policy::endpoint::{Address, Endpoint};
use crate::policy::path::normal_path;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The size of `sun_path` without its final NUL.
const UNIX_PATH_MAX: usize = 107;

/// Whether `text` looks like a URL and not like the name of an upstream.
pub fn is_url(text: &str) -> bool {
    text.contains(':') || text.contains('/')
}

pub fn endpoint(url: &str) -> Parsed<Endpoint> {
    let wrong = |why: &str| format!("{} {why}", quoted(url));
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("has a character not allowed in a URL; percent-encode it"));
    }
    if let Some(path) = url.strip_prefix("ws+unix:") {
        return unix(url, path);
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(wrong("is not a URL; expected for example \"ws://10.0.0.1:9000\" or \"ws+unix:/run/app.sock\""));
    };
    let (tls, port) = match scheme {
        "ws" | "http" => (false, 80),
        "wss" | "https" => (true, 443),
        _ => return Err(wrong("has no scheme of a server; expected ws://, wss://, http://, https:// or ws+unix:")),
    };
    let (authority, base) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    Ok(Endpoint::new(url.to_owned(), address(url, authority, port)?, tls, base_path(url, base)?))
}

/// An HTTP server that is asked, by a URL such as `https://sso:9091/verify`.
pub struct HttpServer {
    pub endpoint: Endpoint,
    /// The authority as written.
    pub host: String,
    /// The path as written.
    pub path: String,
}

pub fn http_server(url: &str) -> Parsed<HttpServer> {
    let wrong = |why: &str| format!("{} {why}", quoted(url));
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("has a character not allowed in a URL; percent-encode it"));
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (tls, port) = match scheme {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => {
            return Err(wrong("is not a URL of an HTTP server; expected for example \"http://127.0.0.1:9091/verify\""));
        }
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let address = address(url, authority, port)?;
    base_path(url, path)?;
    // The same server for all paths.
    let endpoint = Endpoint::new(format!("{scheme}://{authority}"), address, tls, String::new());
    Ok(HttpServer { endpoint, host: authority.to_owned(), path: path.to_owned() })
}

fn unix(url: &str, path: &str) -> Parsed<Endpoint> {
    let (path, base) = path.split_once(':').unwrap_or((path, ""));
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.len() < 2 {
        let right = "expected an absolute path, for example \"ws+unix:/run/app.sock\"";
        return Err(format!("{} names no socket; {right}", quoted(url)));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!("{} is too long for a socket; at most {UNIX_PATH_MAX} bytes", quoted(url)));
    }
    Ok(Endpoint::new(url.to_owned(), Address::Unix(PathBuf::from(path)), false, base_path(url, base)?))
}

/// The host and port of `authority`, which stands in `url`.
pub fn address(url: &str, authority: &str, default: u16) -> Parsed<Address> {
    let wrong = |why: &str| format!("{} {why}", quoted(url));
    if authority.contains('@') {
        return Err(wrong("has a user name or password; remove it"));
    }
    if authority.contains(['?', '#']) {
        return Err(wrong("has a query or fragment; remove it"));
    }
    let split = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(authority.split_at(authority.find(':').unwrap_or(authority.len()))),
    };
    let (host, port) = split.ok_or_else(|| wrong("has no \"]\" after its IPv6 address"))?;
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => Some(default),
        // `parse` alone accepts a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|port| *port != 0u16),
        _ => None,
    };
    let port = port.ok_or_else(|| wrong("has no valid port; expected 1 to 65535"))?;
    if authority.starts_with('[') {
        let address = host.parse::<Ipv6Addr>().map_err(|_| wrong("has no valid IPv6 address in its brackets"))?;
        return Ok(Address::Tcp(SocketAddr::from((address, port))));
    }
    if let Ok(address) = host.parse() {
        return Ok(Address::Tcp(SocketAddr::new(address, port)));
    }
    if !is_name(host) {
        return Err(wrong("has no valid host; expected an address, a name, or an IPv6 address in brackets"));
    }
    Ok(Address::Name(format!("{}:{port}", host.to_ascii_lowercase())))
}

/// A host name. One that ends in digits is refused: it is a mistyped IPv4 address.
pub fn is_name(host: &str) -> bool {
    let absolute = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let digits = absolute.rsplit('.').next().unwrap_or_default().bytes().all(|b| b.is_ascii_digit());
    absolute.len() <= 253 && !digits && absolute.split('.').all(label)
}

/// Without trailing slashes.
pub fn base_path(url: &str, base: &str) -> Parsed<String> {
    let wrong = |why: &str| format!("{} {why}", quoted(url));
    if base.contains(['?', '#']) {
        return Err(wrong("has a query or fragment; remove it"));
    }
    if base.is_empty() {
        return Ok(String::new());
    }
    if !base.starts_with('/') || base.contains(['\\', '"', '<', '>', ':']) {
        return Err(wrong("has no valid path; begin it with a slash and percent-encode other characters"));
    }
    // Only a dot segment normalises to nothing.
    if base.split('/').any(|segment| !segment.is_empty() && normal_path(segment) == "/") {
        return Err(wrong("has a dot segment in its path; remove it"));
    }
    Ok(base.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_http_servers() {
        for (url, place, host, path) in [
            ("http://10.0.0.1", "10.0.0.1:80", "10.0.0.1", "/"),
            ("https://10.0.0.1/a/", "10.0.0.1:443", "10.0.0.1", "/a/"),
            ("http://10.0.0.1:9091/api/verify", "10.0.0.1:9091", "10.0.0.1:9091", "/api/verify"),
            ("https://[::1]:9091/", "[::1]:9091", "[::1]:9091", "/"),
        ] {
            let server = http_server(url).unwrap();
            assert_eq!(server.endpoint.address, Address::Tcp(place.parse().unwrap()));
            assert_eq!((server.host.as_str(), server.path.as_str()), (host, path), "{url}");
            assert_eq!(server.endpoint.tls, url.starts_with("https"));
        }
        for (url, why) in [
            ("ws://10.0.0.1", "is not a URL of an HTTP server"),
            ("10.0.0.1:80", "is not a URL of an HTTP server"),
            ("http://", "no valid host"),
            ("http://u:p@x/", "user name or password"),
            ("http://x/a?q", "query or fragment"),
            ("http://x/a b", "percent-encode"),
            ("http://x/../a", "dot segment"),
        ] {
            let error = http_server(url).err().unwrap();
            assert!(error.starts_with(&quoted(url)) && error.contains(why), "{url}: {error}");
        }
    }

    fn parsed(url: &str) -> (Address, String) {
        let endpoint = endpoint(url).unwrap();
        assert_eq!(endpoint.url, url);
        (endpoint.address, endpoint.base)
    }

    #[test]
    fn urls() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        let name = |text: &str| Address::Name(text.to_owned());
        let unix = |text: &str| Address::Unix(PathBuf::from(text));
        for (url, place, base) in [
            ("ws://10.0.0.1:9000", tcp("10.0.0.1:9000"), ""),
            ("ws://10.0.0.1", tcp("10.0.0.1:80"), ""),
            ("ws://10.0.0.1:9000/", tcp("10.0.0.1:9000"), ""),
            ("ws://10.0.0.1:9000/base/x%2f/", tcp("10.0.0.1:9000"), "/base/x%2f"),
            ("ws://[::1]:9000/b", tcp("[::1]:9000"), "/b"),
            ("ws://[::1]", tcp("[::1]:80"), ""),
            ("ws://App.Internal:9000", name("app.internal:9000"), ""),
            ("ws://localhost", name("localhost:80"), ""),
            ("ws://app_1.:81", name("app_1.:81"), ""),
            ("wss://10.0.0.1", tcp("10.0.0.1:443"), ""),
            ("wss://x:8443/b", name("x:8443"), "/b"),
            ("ws://x/a..b/...", name("x:80"), "/a..b/..."),
            ("ws+unix:/run/app.sock", unix("/run/app.sock"), ""),
            ("ws+unix:///run/app.sock", unix("/run/app.sock"), ""),
            ("ws+unix:/run/app.sock:/base/", unix("/run/app.sock"), "/base"),
        ] {
            assert_eq!(parsed(url), (place, base.to_owned()), "{url}");
        }
    }

    #[test]
    fn invalid_urls_are_explained() {
        let long = format!("ws+unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for (url, why) in [
            ("ftp://x", "expected ws://, wss://, http://, https:// or ws+unix:"),
            ("x:80", "is not a URL"),
            ("/run/app.sock", "is not a URL"),
            ("ws:/x", "is not a URL"),
            ("ws://", "no valid host"),
            ("ws://:80", "no valid host"),
            ("ws:///x", "no valid host"),
            ("ws://a..b", "no valid host"),
            ("ws://a,b", "no valid host"),
            ("ws://10.0.0.256", "no valid host"),
            ("ws://1234", "no valid host"),
            ("ws://::1:80", "no valid port"),
            ("ws://x:", "no valid port"),
            ("ws://x:0", "no valid port"),
            ("ws://x:+1", "no valid port"),
            ("ws://x:65536", "no valid port"),
            ("ws://[::1", "no \"]\""),
            ("ws://[::1]80", "no valid port"),
            ("ws://[x]:80", "no valid IPv6"),
            ("ws://u:p@x", "user name or password"),
            ("ws://x?q", "query or fragment"),
            ("ws://x/a?q", "query or fragment"),
            ("ws://x/a#f", "query or fragment"),
            ("ws://x/a b", "percent-encode"),
            ("ws://ü/", "percent-encode"),
            ("ws://x/a\\b", "no valid path"),
            ("ws://x/a/../b", "dot segment"),
            ("ws://x/a/%2E", "dot segment"),
            ("ws+unix:", "names no socket"),
            ("ws+unix:run/x", "names no socket"),
            ("ws+unix:/x:y", "no valid path"),
            (&long, "too long"),
        ] {
            let error = endpoint(url).unwrap_err();
            assert!(error.starts_with(&quoted(url)) && error.contains(why), "{url}: {error}");
        }
    }
}
