//! `framegate demo`: the proxy in front of a built-in echo backend, with a page that measures round
//! trips. With `--tls` it also serves TLS with a self-signed certificate.

mod certificate;
mod page;

use crate::certs::Certificates;
use crate::config::{self, Listener};
use crate::control::{Addresses, Demo};
use crate::echo::Echo;
use crate::server::{self, Failure, failed, join, spawn};
use certificate::TemporaryCert;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs until a signal ends the process.
pub fn run(listen: SocketAddr, admin: SocketAddr, tls: Option<SocketAddr>) -> Result<(), Failure> {
    let echo = Echo::bind(([127, 0, 0, 1], 0).into()).map_err(|e| failed("cannot start the echo backend", e))?;
    let backend = echo.local_addr().map_err(|e| failed("cannot start the echo backend", e))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (handle, stopped) = (echo.handle(), Arc::clone(&stop));
    let thread = spawn("echo", move || echo.run(&stopped))?;
    let result = run_proxy(listen, admin, tls, backend);
    stop.store(true, Ordering::Relaxed);
    // Ignored: without the wake-up the backend sees the flag within 100 ms.
    let _ = handle.wake();
    join(thread)?.map_err(|e| failed("the echo backend failed", e))?;
    result
}

fn run_proxy(
    listen: SocketAddr,
    admin: SocketAddr,
    tls: Option<SocketAddr>,
    backend: SocketAddr,
) -> Result<(), Failure> {
    if tls == Some(listen) {
        return Err(Failure(format!("--tls-listen: {listen} is already used by --listen; choose another")));
    }
    let mut listeners = vec![Listener::plain(listen)];
    let cert = tls.map(TemporaryCert::new).transpose().map_err(|e| failed("cannot create a certificate", e))?;
    if let Some(cert) = &cert {
        listeners.push(Listener::secure(cert.addr, cert.files.clone()));
    }
    let snapshot = config::demo(listeners, admin, backend);
    let certificates = Certificates::load(&snapshot).map_err(|errors| Failure(errors.join("; ")))?;
    let cert_path = cert.as_ref().map(|cert| cert.files.cert.clone());
    let demo = Demo { page: page::html, announcement: Box::new(move |at| announcement(at, cert_path.as_ref())) };
    server::run_demo(snapshot, certificates, demo)
}

fn announcement(at: &Addresses, cert: Option<&PathBuf>) -> String {
    let Some(proxy) = at.plain else { return String::new() };
    let mut lines = vec![format!("\n  ws://{proxy}/ is proxied to a built-in echo backend. Try:\n")];
    if let Some(admin) = at.admin {
        lines.push(format!("    browser:   http://{admin}/        (live round-trip times)"));
    }
    lines.push(format!("    python:    python3 -m websockets ws://{proxy}/"));
    lines.push(format!("    node:      npx wscat -c ws://{proxy}/"));
    if let Some(admin) = at.admin {
        lines.push(format!("    metrics:   curl http://{admin}/metrics"));
    }
    if let (Some(addr), Some(cert)) = (at.tls, cert) {
        let cert = cert.display();
        lines.push(format!("    TLS:       curl --cacert {cert} https://{addr}/"));
        lines.push(format!("               framegate-loadtest echo wss://{addr}/ --ca {cert}"));
    }
    lines.push(
        "\n  The access log follows: one line when a session starts, one when it ends. Ctrl-C to stop.\n".to_owned(),
    );
    lines.join("\n")
}
