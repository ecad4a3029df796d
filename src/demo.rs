//! `framegate demo`: the proxy in front of a built-in echo backend, with a page to try, and with a certificate of its own
//! making where TLS is asked for.

use crate::config::{self, CertificateFiles, Listener};
use crate::control::secure::Secure;
use crate::echo::Echo;
use crate::server::{self, Failure, failed, join, spawn};
use crate::tls;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Runs until it is told to stop.
pub fn run(listen: SocketAddr, admin: SocketAddr, tls: Option<SocketAddr>) -> Result<(), Failure> {
    let echo = Echo::bind(([127, 0, 0, 1], 0).into()).map_err(|e| failed("cannot start the echo backend", e))?;
    let backend = echo.local_addr().map_err(|e| failed("cannot start the echo backend", e))?;
    let (stop, handle) = (Arc::new(AtomicBool::new(false)), echo.handle());
    let seen = Arc::clone(&stop);
    let thread = spawn("echo", move || echo.run(&seen))?;
    let result = proxy(listen, admin, (tls, backend));
    stop.store(true, Ordering::Relaxed);
    // It sees the flag within 100 ms even if it cannot be woken.
    let _slower = handle.wake();
    join(thread)?.map_err(|e| failed("the echo backend failed", e))?;
    result
}

fn proxy(
    listen: SocketAddr,
    admin: SocketAddr,
    (tls, backend): (Option<SocketAddr>, SocketAddr),
) -> Result<(), Failure> {
    let mut listeners = vec![Listener::plain(listen)];
    let made = tls.map(Made::new).transpose().map_err(|e| failed("cannot make a certificate", e))?;
    if let Some(made) = &made {
        listeners.push(Listener::secure(made.addr, made.files.clone()));
    }
    let snapshot = config::demo(listeners, admin, backend);
    let secure = Secure::load(&snapshot).map_err(|problems| Failure(problems.join("; ")))?;
    server::run_demo(snapshot, secure)
}

/// A certificate for this run, in a directory that only this user can read and that goes with it.
struct Made {
    addr: SocketAddr,
    dir: PathBuf,
    files: CertificateFiles,
}

impl Made {
    fn new(addr: SocketAddr) -> io::Result<Made> {
        let (cert, key) = tls::self_signed(addr.ip(), SystemTime::now()).map_err(io::Error::other)?;
        let dir = std::env::temp_dir().join(format!("framegate-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let files = CertificateFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), ocsp: None };
        let made = Made { addr, dir, files };
        fs::write(&made.files.cert, cert)?;
        fs::write(&made.files.key, key)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            ::log::warn!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
