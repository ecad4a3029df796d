//! TLS as control sees it: the keys of tickets and their rotation, certificates that change in their files, and how long they
//! are still good.

use crate::config::Snapshot;
use crate::policy::tls::Roots;
use crate::proto::Millis;
use crate::tls::{TicketKeys, TlsConfigs};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often files of certificates are looked at.
const LOOK_MS: Millis = 5_000;
/// A certificate that ends within so many days is warned of, at the start and once a day.
const WARN_DAYS: i64 = 14;
const DAY_MS: Millis = 24 * 3600 * 1000;
const DAY_S: i64 = 24 * 3600;

/// What TLS needs that outlives a snapshot.
pub struct Secure {
    keys: Arc<TicketKeys>,
    store: Arc<TlsConfigs>,
    look_at: Millis,
    warn_at: Millis,
}

impl Secure {
    /// Reads all files of a snapshot; what is wrong with them comes out as sentences.
    pub fn load(snapshot: &Snapshot) -> Result<Secure, Vec<String>> {
        let keys = TicketKeys::new();
        let store = Arc::new(read(snapshot, &keys)?);
        Ok(Secure { keys, store, look_at: 0, warn_at: 0 })
    }

    pub fn store(&self) -> Arc<TlsConfigs> {
        Arc::clone(&self.store)
    }

    /// What a reload would go on with, or why it cannot.
    pub fn prepare(&self, next: &Snapshot) -> Result<Arc<TlsConfigs>, String> {
        read(next, &self.keys).map(Arc::new).map_err(|problems| problems.join("\n"))
    }

    /// A reload has taken place.
    pub fn swap(&mut self, store: Arc<TlsConfigs>) {
        (self.store, self.warn_at) = (store, 0);
    }

    /// When to look again; never where there is no TLS.
    pub fn deadline(&self) -> Option<Millis> {
        (!self.store.is_empty()).then_some(self.look_at.min(self.warn_at))
    }

    pub fn on_tick(&mut self, now: Millis) {
        if self.store.is_empty() {
            return;
        }
        if self.look_at <= now {
            self.look_at = now + LOOK_MS;
            if self.keys.rotate(unix_s().unsigned_abs()) {
                ::log::debug!("new ticket keys");
            }
            for told in self.store.refresh() {
                self.warn_at = 0;
                match told {
                    Ok(what) => ::log::info!("{what}"),
                    Err(why) => ::log::error!("{why}"),
                }
            }
        }
        if self.warn_at <= now {
            self.warn_at = now + DAY_MS;
            warnings(&self.store).iter().for_each(|warning| ::log::warn!("{warning}"));
        }
    }

    /// What `check` says of the certificates.
    pub fn describe(&self) -> String {
        days_left(&self.store).map(|(file, days)| format!("certificate {file}, {days} days left\n")).collect()
    }

    /// A sentence for each certificate that needs somebody's attention soon.
    pub fn warnings(&self) -> Vec<String> {
        warnings(&self.store)
    }

    /// Files with certificates, and the days that they have left.
    pub fn days_left(&self) -> Vec<(String, i64)> {
        days_left(&self.store).collect()
    }
}

fn read(snapshot: &Snapshot, keys: &Arc<TicketKeys>) -> Result<TlsConfigs, Vec<String>> {
    let wanted = snapshot.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.tickets));
    if wanted && !keys.begin(unix_s().unsigned_abs()) {
        return Err(vec!["no random bytes for ticket keys".to_owned()]);
    }
    TlsConfigs::load(snapshot, keys)
}

fn days_left(store: &TlsConfigs) -> impl Iterator<Item = (String, i64)> {
    let now = unix_s();
    store.certificates().map(move |(path, not_after)| {
        let left = i64::try_from(not_after).unwrap_or(i64::MAX) - now;
        (path.display().to_string(), left.div_euclid(DAY_S))
    })
}

fn warnings(store: &TlsConfigs) -> Vec<String> {
    let warning = |(file, days): (String, i64)| match days {
        ..0 => Some(format!("the certificate in {file} has ended")),
        0..=WARN_DAYS => Some(format!("the certificate in {file} ends in {days} days")),
        _ => None,
    };
    days_left(store).filter_map(warning).collect()
}

/// A sentence for each upstream whose certificate nobody verifies.
pub fn unverified(snapshot: &Snapshot) -> Vec<String> {
    let loose = |tls: bool, roots: &Roots| tls && *roots == Roots::Unverified;
    let groups = snapshot.groups.iter();
    let groups = groups.filter(|group| loose(group.endpoints.iter().any(|endpoint| endpoint.tls), &group.tls.roots));
    let say =
        |name: &str| format!("upstream \"{name}\" is not verified (insecure_skip_verify): anybody may pose as it");
    groups.map(|group| say(&group.name)).collect()
}

fn unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
