//! Requests as routes see them, made from a head that is parsed like any client's.

#![allow(dead_code)] // each test binary uses a part

use framegate::policy::matching::{Found, Routes};
use framegate::policy::route::Route;
use framegate::policy::{ClientCert, Facts};
use framegate::proto::http1::parse_request;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A request, and who sends it.
#[derive(Debug, Clone)]
pub struct Asking {
    pub head: String,
    pub client: IpAddr,
    /// Subject and fingerprint.
    pub cert: Option<(String, String)>,
}

impl Asking {
    pub fn new(method: &str, host: &str, target: &str, fields: &str) -> Asking {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        Asking { head, client: Ipv4Addr::new(192, 0, 2, 1).into(), cert: None }
    }

    #[track_caller]
    pub fn with<R>(&self, use_: impl FnOnce(&Facts<'_>) -> R) -> R {
        let request = parse_request(self.head.as_bytes()).unwrap_or_else(|e| panic!("{e:?}: {}", self.head));
        let cert = self.cert.as_ref().map(|(subject, sha256)| ClientCert { subject, sha256 });
        use_(&Facts { request_id: "id-1", secure: cert.is_some(), cert, ..Facts::new(&request, self.client) })
    }

    /// Its route, and what the names in the path stand for.
    #[track_caller]
    pub fn found<R>(&self, routes: &Routes, use_: impl FnOnce(Option<Found<'_>>) -> R) -> R {
        self.with(|facts| use_(routes.find(facts)))
    }
}

/// The route of a GET without further fields.
#[track_caller]
pub fn route_of(routes: &Routes, host: &str, path: &str) -> Option<Arc<Route>> {
    Asking::new("GET", host, path, "").found(routes, |found| found.map(|found| Arc::clone(&found.entry.route)))
}
