//! TLS of the generator's connections; the only file here that names rustls. Filled in by its own change.

use std::sync::Arc;

/// What TLS connections of a target share: versions, trust, certificate, resumption, name.
#[derive(Debug, Clone)]
pub struct Client {
    pub config: Arc<rustls::ClientConfig>,
    pub name: rustls::pki_types::ServerName<'static>,
}
