//! Certificates and ticket keys, which outlive a snapshot: loads them at start and reload, checks
//! the files for changes, rotates the ticket keys, warns before a certificate expires. Owned by the
//! control thread.

use crate::clock::unix_s;
use crate::config::Snapshot;
use crate::policy::tls::Roots;
use crate::proto::Millis;
use crate::tls::{TicketKeys, TlsConfigs};
use std::sync::Arc;

/// Interval at which certificate files are checked for changes.
const CHECK_MS: Millis = 5_000;
/// A certificate that expires within this time is warned about at start and once a day.
const WARN_DAYS: i64 = 14;
const DAY_MS: Millis = 24 * 3600 * 1000;
const DAY_S: i64 = 24 * 3600;

pub struct Certificates {
    ticket_keys: Arc<TicketKeys>,
    configs: Arc<TlsConfigs>,
    check_at: Millis,
    warn_at: Millis,
}

impl Certificates {
    /// Reads all files that a snapshot names.
    ///
    /// # Errors
    /// One sentence for each file that cannot be used.
    pub fn load(snapshot: &Snapshot) -> Result<Certificates, Vec<String>> {
        let ticket_keys = TicketKeys::new();
        let configs = Arc::new(read(snapshot, &ticket_keys)?);
        Ok(Certificates { ticket_keys, configs, check_at: 0, warn_at: 0 })
    }

    /// The TLS configurations of the current snapshot.
    pub fn configs(&self) -> Arc<TlsConfigs> {
        Arc::clone(&self.configs)
    }

    /// Reads the files of the snapshot that a reload would use; nothing changes before
    /// [`Certificates::replace`].
    pub fn prepare(&self, next: &Snapshot) -> Result<Arc<TlsConfigs>, String> {
        read(next, &self.ticket_keys).map(Arc::new).map_err(|errors| errors.join("\n"))
    }

    /// Completes a reload.
    pub fn replace(&mut self, configs: Arc<TlsConfigs>) {
        (self.configs, self.warn_at) = (configs, 0);
    }

    /// When [`Certificates::on_tick`] is due; `None` without TLS.
    pub fn deadline(&self) -> Option<Millis> {
        (!self.configs.is_empty()).then_some(self.check_at.min(self.warn_at))
    }

    pub fn on_tick(&mut self, now: Millis) {
        if self.configs.is_empty() {
            return;
        }
        if self.check_at <= now {
            self.check_at = now + CHECK_MS;
            self.check_files();
        }
        if self.warn_at <= now {
            self.warn_at = now + DAY_MS;
            self.warnings().iter().for_each(|warning| ::log::warn!("{warning}"));
        }
    }

    fn check_files(&mut self) {
        if self.ticket_keys.rotate(unix_s()) {
            ::log::debug!("rotated the session ticket keys");
        }
        for result in self.configs.refresh() {
            self.warn_at = 0;
            match result {
                Ok(message) => ::log::info!("{message}"),
                Err(error) => ::log::error!("{error}"),
            }
        }
    }

    /// The lines of `check` about certificates.
    pub fn describe(&self) -> String {
        self.days_left().iter().map(|(file, days)| format!("certificate {file}, {days} days left\n")).collect()
    }

    /// One sentence for each certificate that has expired or expires soon.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |(file, days): &(String, i64)| match days {
            ..0 => Some(format!("certificate {file} has expired")),
            0 => Some(format!("certificate {file} expires in less than a day")),
            1 => Some(format!("certificate {file} expires in 1 day")),
            2..=WARN_DAYS => Some(format!("certificate {file} expires in {days} days")),
            _ => None,
        };
        self.days_left().iter().filter_map(warning).collect()
    }

    /// Certificate files, each with the days until it expires.
    pub fn days_left(&self) -> Vec<(String, i64)> {
        let now = unix_s();
        let days = |not_after: u64| not_after.wrapping_sub(now).cast_signed().div_euclid(DAY_S);
        let certificates = self.configs.certificates();
        certificates.map(|(path, not_after)| (path.display().to_string(), days(not_after))).collect()
    }
}

/// One sentence for each upstream whose certificate is not verified.
pub fn unverified(snapshot: &Snapshot) -> Vec<String> {
    let upstreams = snapshot.upstreams.iter().filter(|upstream| upstream.tls.roots == Roots::Unverified);
    let upstreams = upstreams.filter(|upstream| snapshot.uses_tls(upstream));
    let warning =
        |name: &str| format!("the TLS certificate of upstream \"{name}\" is NOT verified (insecure_skip_verify)");
    upstreams.map(|upstream| warning(&upstream.name)).collect()
}

fn read(snapshot: &Snapshot, ticket_keys: &Arc<TicketKeys>) -> Result<TlsConfigs, Vec<String>> {
    let tickets = snapshot.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.tickets));
    if tickets && !ticket_keys.begin(unix_s()) {
        return Err(vec!["cannot create session ticket keys: no random bytes".to_owned()]);
    }
    TlsConfigs::load(snapshot, ticket_keys)
}
