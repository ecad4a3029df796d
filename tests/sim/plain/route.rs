//! The route and the upstream of a schedule of plain HTTP.

use super::{Plan, RETRIED};
use framegate::policy::endpoint::{Address, Endpoint};
use framegate::policy::matching::{Entry, PathPattern};
use framegate::policy::route::Route;
use framegate::policy::upstream::{KeepAlive, Member, Options, Rules, Upstream};
use framegate::proto::proxy_protocol::Version;
use framegate::proto::settings::{RetryOn, Settings};
use std::net::SocketAddr;
use std::sync::Arc;

/// The second part of the addresses of servers.
pub const PLAIN: usize = 8;
const PATH: &str = "/plain";

/// Upstream and route in the configuration; `tls` is what the upstream has of that.
pub fn config(scheme: &str, tls: &str) -> String {
    format!(
        "[[upstream]]\nname = \"plain\"\nendpoints = [\"{scheme}://10.{PLAIN}.0.1:80\"]\n{tls}\
         [[route]]\npath = \"{PATH}/*\"\nupstream = \"plain\"\nprotocols = [\"websocket\", \"http\"]\n"
    )
}

fn is_plain(entry: &&Entry) -> bool {
    matches!(&entry.path, PathPattern::Under(path) if path == PATH)
}

fn member(endpoint: usize, secure: bool) -> Member {
    let addr = SocketAddr::from(([10, PLAIN as u8, 0, endpoint as u8 + 1], 80));
    let url = format!("{}://{addr}", if secure { "https" } else { "http" });
    let endpoint = Arc::new(Endpoint::new(url, Address::Tcp(addr), secure, String::new()));
    Member { endpoint, weight: 1, priority: 0 }
}

/// The route of a schedule, made of that in the configuration.
pub fn entry(configured: &[Entry], plan: &Plan, [secure, headed]: [bool; 2]) -> Entry {
    let base = configured.iter().find(is_plain).expect("the route of plain HTTP");
    let tls = base.route.upstreams()[0].tls.clone();
    let keep_alive = KeepAlive { connections: plan.kept, idle_ms: plan.idle_ms, age_ms: plan.age_ms };
    let rules = Rules { proxy_protocol: headed.then_some(Version::V1), keep_alive, ..Rules::default() };
    let members = (0..plan.endpoints).map(|endpoint| member(endpoint, secure)).collect();
    let upstream = Arc::new(Upstream::new("plain".to_owned(), members, Options { rules, tls, check: None }));
    let retry_on = match plan.retries {
        true => RetryOn { closed: true, timeout: true, statuses: vec![RETRIED] },
        false => RetryOn::default(),
    };
    let max_body = plan.max_body as u64;
    let settings = Arc::new(Settings { max_body, retry_on, ..(*base.route.settings).clone() });
    let protocols = base.route.protocols;
    let route = Route { settings, protocols, ..Route::new(base.route.name.clone(), upstream) };
    Entry { route: Arc::new(route), ..base.clone() }
}

/// The upstream of plain HTTP among these routes.
pub fn upstream(entries: &[Entry]) -> Option<Arc<Upstream>> {
    Some(Arc::clone(&entries.iter().find(is_plain)?.route.upstreams()[0]))
}

/// The upstream of the schedule counts nothing any more.
pub fn check_counts(entries: &[Entry]) -> Result<(), String> {
    for upstream in entries.iter().filter(is_plain).flat_map(|entry| entry.route.upstreams()) {
        let (counts, queued) = (upstream.sessions(), upstream.queued());
        if (counts, queued) != ((0, 0), 0) {
            return Err(format!("plain requests are still counted: {counts:?}, {queued} in the queue"));
        }
    }
    Ok(())
}
