//! Listening sockets: binding them, and what a worker keeps of one. Every worker has its twin
//! (SO_REUSEPORT). Accepted sockets inherit their options from here: no setsockopt per client.

use super::sys::{Sys, set_options};
use super::token::Token;
use crate::config::{Listener, Snapshot, Sockets};
use crate::proto::Millis;
use crate::tls::{Acceptor, Failure, Tls, TlsConfigs};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Connections taken from one queue in a loop iteration.
pub(super) const ACCEPTS_MAX: usize = 64;
/// Connections closed in a loop iteration to make room for those.
pub(super) const RECLAIMS_MAX: usize = 16;
/// The pause after descriptors or memory ran out: there is no second edge, and asking at once would
/// spin.
pub(super) const BACKOFF_MS: Millis = 100;

/// Connections taken from a queue that ends: as many as it can usually hold.
const LAST_ACCEPTS: u32 = 4096;

/// A listener of one worker.
#[derive(Debug)]
pub struct Listening<L> {
    pub listener: L,
    /// As configured; a reload replaces it.
    pub config: Arc<Listener>,
    tls: Option<Acceptor>,
    /// There may be more in the queue than was taken.
    pub accept_pending: bool,
    /// Nothing is accepted before then.
    pub not_before: Millis,
    /// It ends once its queue is empty, or this many more were taken from it: a queue that is never
    /// empty must end too.
    ending: Option<u32>,
    /// It could not be registered: its queue is looked at, tick by tick.
    pub polled: bool,
    /// In its token; given when it is registered.
    pub id: u32,
}

impl<L> Listening<L> {
    /// The listener of `snapshot` at `addr`; `None` if it has none there.
    pub fn new(addr: SocketAddr, listener: L, snapshot: &Snapshot, tls: &TlsConfigs) -> Option<Listening<L>> {
        let config = snapshot.listeners.iter().find(|config| config.addr == addr)?;
        Some(Listening {
            listener,
            config: Arc::new(config.clone()),
            tls: tls.acceptor(addr),
            accept_pending: true,
            not_before: 0,
            ending: None,
            polled: false,
            id: 0,
        })
    }

    /// The address as configured: what a reload knows it by.
    pub fn addr(&self) -> SocketAddr {
        self.config.addr
    }

    /// Takes over what a new snapshot says about it.
    pub(super) fn reload(&mut self, snapshot: &Snapshot, tls: &TlsConfigs) {
        if let Some(config) = snapshot.listeners.iter().find(|config| config.addr == self.config.addr) {
            self.config = Arc::new(config.clone());
            self.tls = tls.acceptor(config.addr);
        }
    }

    /// The TLS side of a connection that was accepted here; `None` without TLS.
    pub(super) fn accept_tls(&self) -> Option<Result<Tls, Failure>> {
        self.tls.as_ref().map(Acceptor::accept)
    }

    /// Registers it, once.
    pub(super) fn register<S: Sys<Listener = L>>(&mut self, sys: &mut S) -> io::Result<()> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(1);
        if self.id == 0 {
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            sys.register_listener(&mut self.listener, Token::Listener(id).pack())?;
            self.id = id;
        }
        Ok(())
    }

    /// Its queue is empty.
    pub(super) fn drained(&mut self, now: Millis) {
        self.accept_pending = self.polled && self.ending.is_none();
        // An edge says when there is more, and is obeyed at once; only who gets none has to wait
        // and look.
        self.not_before = if self.accept_pending { now + BACKOFF_MS } else { 0 };
    }

    /// It ends: its queue is still served.
    pub(super) fn end(&mut self) {
        (self.ending, self.accept_pending) = (Some(LAST_ACCEPTS), true);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// One was taken from the queue.
    pub(super) fn took_one(&mut self) {
        if let Some(left) = &mut self.ending {
            *left -= 1;
            self.accept_pending = *left > 0;
        }
    }
}

/// A listening socket of a worker.
pub type Twin = mio::net::TcpListener;

/// The sockets of one listener, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// As configured.
    pub addr: SocketAddr,
    /// As the kernel has it, where port 0 was asked for.
    pub local: SocketAddr,
    twins: Vec<TcpListener>,
}

impl Bound {
    /// The socket of one more worker.
    pub fn twin(&mut self) -> Option<Twin> {
        self.twins.pop().map(Twin::from_std)
    }
}

/// Why an address cannot be listened on; displays as one sentence.
#[derive(Debug)]
pub struct BindError {
    pub addr: SocketAddr,
    /// Empty for clients; else what for, as ` for admin`.
    pub purpose: &'static str,
    pub error: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}{}: ", self.addr, self.purpose)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => write!(f, "something else listens there already"),
            io::ErrorKind::PermissionDenied => write!(f, "not permitted to this user"),
            _ => write!(f, "{}", self.error),
        }
    }
}

/// Binds all listeners, each with `twins` sockets, or none.
pub fn bind_all(listeners: &[Listener], twins: usize, sockets: &Sockets) -> Result<Vec<Bound>, BindError> {
    let bind_one = |listener: &Listener| {
        let addr = listener.addr;
        let cannot = |error| BindError { addr, purpose: "", error };
        let twins = bind(addr, twins, sockets).map_err(cannot)?;
        let local = twins.first().map_or(Ok(addr), TcpListener::local_addr).map_err(cannot)?;
        Ok(Bound { addr, local, twins })
    };
    listeners.iter().map(bind_one).collect()
}

/// Binds `twins` sockets to one address. A probe without SO_REUSEPORT comes first: another process
/// that listens there would otherwise be joined, and each get a share of the clients.
pub fn bind(addr: SocketAddr, twins: usize, sockets: &Sockets) -> io::Result<Vec<TcpListener>> {
    let probe = socket(addr, false)?;
    probe.bind(&addr.into())?;
    // Only bound sockets that listen keep others away, and they keep our own twins away as well: it
    // goes first.
    let addr = probe.local_addr()?.as_socket().unwrap_or(addr);
    drop(probe);
    let twin = || {
        let socket = socket(addr, true)?;
        socket.bind(&addr.into())?;
        set_options(&socket, sockets)?;
        socket.listen(backlog())?;
        Ok(TcpListener::from(socket))
    };
    (0..twins).map(|_| twin()).collect()
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // `[::]` serves IPv6 alone, so that `0.0.0.0` beside it is no conflict.
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

/// The longest queue that the kernel grants.
fn backlog() -> i32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> Sockets {
        Sockets { notsent_lowat_bytes: 131_072, keepalive_s: 60, user_timeout_ms: 0 }
    }

    #[test]
    fn twins_share_a_port_and_a_second_instance_is_refused() {
        let twins = bind("127.0.0.1:0".parse().unwrap(), 3, &sockets()).unwrap();
        let addr = twins[0].local_addr().unwrap();
        assert!(twins.iter().all(|twin| twin.local_addr().unwrap() == addr));
        let refused = bind(addr, 1, &sockets()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(twins);
        bind(addr, 1, &sockets()).unwrap();
    }
}
