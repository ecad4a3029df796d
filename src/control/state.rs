//! What the control thread owns.

use super::deny_files::DenyFiles;
use super::watch::Endpoints;
use crate::admin::Admin;
use crate::certs::Certificates;
use crate::config::{Snapshot, Source};
use crate::discovery::Sources;
use crate::health::Checks;
use crate::log;
use crate::metrics::Shard;
use crate::os::Signals;
use crate::policy::limit::Permits;
use crate::proto::Millis;
use crate::resolver::Resolve;
use crate::service::Asker;
use crate::sharing::Sharing;
use crate::worker::inbox::{Command, Outbox};
use crate::worker::listener::Twin;
use crate::worker::service::Question;
use crate::worker::sys::now_ms;
use mio::unix::SourceFd;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;

const WAKER: usize = 0;
pub(super) const STOP: usize = 1;
pub(super) const RELOAD: usize = 2;
/// The first of the tokens of the admin listener and its connections.
pub(super) const ADMIN: usize = 3;

/// What control is started with.
pub struct Parts {
    /// What a reload reads; `None` if the configuration cannot be reloaded.
    pub source: Option<Source>,
    pub demo: Option<Demo>,
    /// RLIMIT_NOFILE.
    pub nofile: u64,
    pub sessions: Arc<Permits>,
    pub handshakes: Arc<Permits>,
    /// Worker restarts after a panic.
    pub restarts: Arc<AtomicU64>,
    pub log: log::Control,
    pub certificates: Certificates,
    pub started_unix_ms: u64,
    /// Listener addresses as configured and as bound.
    pub listening: Vec<(SocketAddr, SocketAddr)>,
}

/// What `framegate demo` adds to a process.
pub struct Demo {
    /// The page at `/` of the admin listener, from the URL of the proxy.
    pub page: fn(ws_url: &str) -> String,
    /// The text printed when the process is ready.
    pub announcement: Box<dyn Fn(&Addresses) -> String>,
}

/// Addresses as bound: the first listener without TLS, the first with TLS, the admin listener.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub plain: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

pub struct Control {
    pub(super) parts: Parts,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) poll: mio::Poll,
    pub(super) waker: Arc<mio::Waker>,
    pub(super) signals: Signals,
    pub(super) admin: Option<Admin>,
    /// `None` before they are started.
    pub(super) sources: Option<Sources>,
    /// `None` before the process has started it.
    pub(super) keys: Option<Asker<Question>>,
    /// `None` before the process has started it.
    pub(super) sharing: Option<Sharing>,
    /// Indices of workers that have ended.
    pub(super) ended_workers: Receiver<usize>,
    pub(super) reloads_ok: u64,
    pub(super) reloads_refused: u64,
    pub(super) drain: Drain,
    pub(super) endpoints: Endpoints,
    pub(super) deny_files: DenyFiles,
}

/// Running -> Draining -> Stopping
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Drain {
    #[default]
    Running,
    Draining {
        until: Millis,
    },
    /// The workers were ordered to close their sessions at once.
    Stopping,
}

impl Drain {
    pub fn has_begun(self) -> bool {
        self != Drain::Running
    }

    pub fn deadline(self) -> Option<Millis> {
        match self {
            Drain::Draining { until } => Some(until),
            Drain::Running | Drain::Stopping => None,
        }
    }
}

/// The workers and the service threads, as control reaches them.
pub(super) struct Workers {
    pub outboxes: Vec<Outbox<Twin>>,
    pub shards: Vec<Arc<Shard>>,
    pub resolver: Asker<Resolve>,
    pub checks: Checks,
}

impl Workers {
    pub fn send_all(&self, command: impl Fn() -> Command<Twin>) {
        self.outboxes.iter().for_each(|outbox| outbox.send(command()));
    }
}

impl Control {
    pub fn new(
        parts: Parts,
        snapshot: Arc<Snapshot>,
        admin: Option<TcpListener>,
        signals: Signals,
        ended_workers: Receiver<usize>,
    ) -> io::Result<Control> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(WAKER))?);
        for (stream, token) in [(&signals.stop, STOP), (&signals.reload, RELOAD)] {
            let mut source = SourceFd(&stream.as_raw_fd());
            poll.registry().register(&mut source, mio::Token(token), mio::Interest::READABLE)?;
        }
        let mut deny_files = DenyFiles::default();
        deny_files.replace(&snapshot, now_ms());
        let admin = admin.map(|listener| Admin::new(listener, poll.registry(), ADMIN)).transpose()?;
        Ok(Control {
            parts,
            snapshot,
            poll,
            waker,
            signals,
            admin,
            sources: None,
            keys: None,
            sharing: None,
            ended_workers,
            reloads_ok: 0,
            reloads_refused: 0,
            drain: Drain::default(),
            endpoints: Endpoints::default(),
            deny_files,
        })
    }

    pub fn waker(&self) -> Arc<mio::Waker> {
        Arc::clone(&self.waker)
    }

    /// The same with the service that fetches key sets.
    pub fn with_keys(self, keys: Option<Asker<Question>>) -> Control {
        Control { keys, ..self }
    }

    /// The same with the thread that shares limits, which begins with the running configuration.
    pub fn with_sharing(self, sharing: Sharing) -> Control {
        sharing.set(&self.snapshot);
        Control { sharing: Some(sharing), ..self }
    }

    /// The same with the sources of the running configuration.
    pub fn with_sources(self, sources: Sources) -> Control {
        Control { sources: Some(sources), ..self }
    }

    /// Wakes the loop from another thread.
    pub fn wake(&self) -> impl Fn() + Send + Sync + 'static {
        let waker = self.waker();
        // Ignored: the loop has ended, or looks at everything in a moment anyway.
        move || drop(waker.wake())
    }

    pub fn sessions(&self) -> Arc<Permits> {
        Arc::clone(&self.parts.sessions)
    }

    pub fn handshakes(&self) -> Arc<Permits> {
        Arc::clone(&self.parts.handshakes)
    }

    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.parts.restarts)
    }

    pub(super) fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    pub(super) fn addresses(&self) -> Addresses {
        let bound = |tls: bool| {
            let listener = self.snapshot.listeners.iter().find(|listener| listener.tls.is_some() == tls)?;
            let mut listening = self.parts.listening.iter();
            listening.find(|(configured, _)| *configured == listener.addr).map(|(_, bound)| *bound)
        };
        Addresses { plain: bound(false), tls: bound(true), admin: self.admin_addr() }
    }
}
