//! Reload: a complete new snapshot, or no change at all.

use super::state::{Control, Workers};
use crate::certs;
use crate::config::Snapshot;
use crate::discovery::Prepared;
use crate::jwks;
use crate::log;
use crate::os;
use crate::resolver::{self, Resolve};
use crate::worker::inbox::{Added, Command};
use crate::worker::listener::{Bound, bind_all};
use crate::worker::sys::now_ms;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

impl Control {
    /// Reads the configuration again and switches to it.
    ///
    /// # Errors
    /// The configuration or something it names cannot be used. The error has been logged, and
    /// nothing has changed.
    pub(super) fn reload(&mut self, workers: &mut Workers) -> Result<(), String> {
        match self.try_reload(workers) {
            Ok(()) => {
                self.reloads_ok += 1;
                ::log::info!("configuration reloaded");
                Ok(())
            }
            Err(error) => {
                self.reloads_refused += 1;
                // One log line for each: diagnostics escape line feeds.
                for line in error.lines() {
                    ::log::error!("reload failed, keeping the running configuration: {line}");
                }
                Err(error)
            }
        }
    }

    fn try_reload(&mut self, workers: &mut Workers) -> Result<(), String> {
        let source = self.parts.source.as_ref().ok_or("there is no configuration file")?;
        if self.drain.has_begun() {
            return Err("the process is draining".to_owned());
        }
        let next = source.load().map_err(|error| error.to_string())?;
        self.refuse_fixed(&next)?;
        if let Some(error) = next.resource_errors(self.parts.nofile, os::cpus()).into_iter().next() {
            return Err(error);
        }
        let tls = self.parts.certificates.prepare(&next)?;
        // Everything that can fail comes first: reading keys, binding, opening the log.
        let known = |addr: &SocketAddr| self.parts.listening.iter().any(|(configured, _)| configured == addr);
        let added: Vec<_> = next.listeners.iter().filter(|listener| !known(&listener.addr)).cloned().collect();
        let mut bound = bind_all(&added, workers.outboxes.len(), &next.sockets).map_err(|e| e.to_string())?;
        let prepared = self.sources.as_ref().map_or_else(|| Ok(Prepared::default()), |one| one.prepare(&next))?;
        self.parts
            .log
            .set(&next.log.access, next.log.format)
            .map_err(|e| format!("cannot open the access log: {e}"))?;
        log::set_level(next.log.level);
        let unlisted = |addr: &SocketAddr| !next.listeners.iter().any(|listener| listener.addr == *addr);
        let removed: Vec<_> = self.parts.listening.iter().map(|(addr, _)| *addr).filter(unlisted).collect();
        self.parts.listening.retain(|(addr, _)| !removed.contains(addr));
        for bound in &bound {
            ::log::info!("listening on {}", bound.local);
            self.parts.listening.push((bound.addr, bound.local));
        }
        let limits = next.resolved_limits(self.parts.nofile);
        self.parts.sessions.set_max(limits.max_sessions);
        self.parts.handshakes.set_max(limits.max_handshakes);
        next.inherit(&self.snapshot, now_ms());
        if let Some(sources) = &mut self.sources {
            sources.replace(prepared, &next, Some(&self.snapshot));
        }
        self.deny_files.replace(&next, now_ms());
        self.snapshot = Arc::new(next);
        self.parts.certificates.replace(Arc::clone(&tls));
        certs::unverified(&self.snapshot).iter().for_each(|warning| ::log::warn!("{warning}"));
        self.resolve_names(workers);
        if let Some(keys) = &self.keys {
            jwks::keep(keys, &self.snapshot);
        }
        if let Some(sharing) = &self.sharing {
            sharing.set(&self.snapshot);
        }
        workers.checks.set(&self.snapshot, Arc::clone(&tls), self.parts.nofile);
        for outbox in &workers.outboxes {
            let twin = |bound: &mut Bound| Some(Added { addr: bound.addr, listener: bound.twin()? });
            let added = bound.iter_mut().filter_map(twin).collect();
            let (snapshot, tls) = (Arc::clone(&self.snapshot), Arc::clone(&tls));
            outbox.send(Command::Swap { snapshot, tls, added, removed: removed.clone() });
        }
        Ok(())
    }

    /// Resolves new names before routes use them, so that no request is refused in between. Waits
    /// as long as at start.
    fn resolve_names(&self, workers: &Workers) {
        let (done, told) = sync_channel(1);
        let resolve = Resolve::of(&self.snapshot, Some(done));
        let wait = !resolve.is_empty();
        if workers.resolver.ask(resolve).is_ok() && wait {
            // If it takes longer, routes without an address answer 503 until it is there.
            let _ = told.recv_timeout(resolver::FIRST_NAMES);
        }
    }

    /// Refuses changes that need a new process.
    fn refuse_fixed(&self, next: &Snapshot) -> Result<(), String> {
        let now = &self.snapshot;
        let fixed = [
            ("[workers]", now.workers != next.workers),
            ("[admin]", now.admin != next.admin),
            // Accepted sockets inherit the options that their listener was bound with.
            ("[sockets]", now.sockets != next.sockets),
        ];
        match fixed.into_iter().find(|(_, changed)| *changed) {
            Some((section, _)) => Err(format!("{section} cannot change at run time; restart to apply it")),
            None => Ok(()),
        }
    }
}
