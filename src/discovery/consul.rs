//! Consul: the passing instances of a service, by blocking queries on its health API. A query is
//! held back until there is something newer than its index.
//!
//! <https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service>
//! <https://developer.hashicorp.com/consul/api-docs/features/blocking>

use super::http::{Client, Header, PROMPT, Patience, body};
use super::{Answer, Found, Slot, Source, url};
use crate::config::discovery::Consul as Config;
use std::time::Duration;

/// Consul adds up to a sixteenth of the wait to a query that it holds back.
const JITTER: u32 = 16;
/// Between two queries, so that a service in constant change does not keep both sides busy.
const PAUSE: Duration = Duration::from_millis(30);
/// Before a query that is not held back: after a reset of the index.
const RESET: Duration = Duration::from_secs(1);

pub struct Consul {
    config: Config,
    tls: bool,
    path: String,
    client: Client,
    /// Of the last answer; 0 asks for an answer at once.
    index: u64,
}

impl Consul {
    pub fn new(config: &Config, tls: bool, path: &str, slot: &Slot) -> Result<Consul, String> {
        let client = Client::new(&config.api, slot)?;
        Ok(Consul { config: config.clone(), tls, path: path.to_owned(), client, index: 0 })
    }
}

impl Source for Consul {
    fn next(&mut self) -> Result<Answer, String> {
        let config = &self.config;
        let path = format!("/v1/health/service/{}", config.service);
        let wait = Duration::from_millis(config.wait_ms);
        let (index, wait_text) = (self.index.to_string(), format!("{}ms", config.wait_ms));
        let mut query = vec![("passing", "1")];
        if self.index > 0 {
            query.extend([("index", index.as_str()), ("wait", wait_text.as_str())]);
        }
        query.extend(config.tag.as_deref().map(|tag| ("tag", tag)));
        query.extend(config.datacenter.as_deref().map(|datacenter| ("dc", datacenter)));
        let patience = Patience { head: wait + wait / JITTER + PROMPT, body: PROMPT };
        let response = self.client.get(&path, &query, Header::Consul, patience)?;
        let header = response.headers().get("x-consul-index").and_then(|value| value.to_str().ok());
        let header = header.and_then(|value| value.parse::<u64>().ok());
        let text = body(&path, response)?;
        let new = header.ok_or_else(|| format!("GET {path}: the answer has no X-Consul-Index"))?;
        let (next, again) = follow(self.index, new);
        let found = match new == self.index {
            true => None,
            false => Some(parse(&text, self.tls, &self.path).map_err(|e| format!("GET {path}: {e}"))?),
        };
        self.index = next;
        Ok(Answer { found, again })
    }
}

/// The index of the next query, and when to send it. One that goes backwards, or is 0, starts
/// anew: Consul was restored or restarted, and would hold back a query with the old one although
/// everything may have changed.
fn follow(last: u64, new: u64) -> (u64, Duration) {
    if new == 0 || new < last { (0, RESET) } else { (new, PAUSE) }
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
    weights: Option<Weights>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

fn parse(text: &str, tls: bool, path: &str) -> Result<Vec<Found>, String> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let found = |Entry { node, service }: Entry| {
        let host = if service.address.is_empty() { &node.address } else { &service.address };
        let weight = service.weights.map_or(1, |weights| weights.passing);
        Found { priority: 0, url: url(tls, host, service.port, path), weight }
    };
    Ok(entries.into_iter().map(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Consul 1.x answers, shortened to what surrounds the fields that are read.
    const ANSWER: &str = r#"[
      {"Node": {"ID": "40e4a748", "Node": "foobar", "Address": "10.1.10.12", "Datacenter": "dc1",
                "TaggedAddresses": {"lan": "10.1.10.12"}, "Meta": {"instance_type": "t2.medium"}},
       "Service": {"ID": "redis", "Service": "redis", "Tags": ["primary"], "Address": "10.1.10.99",
                   "Meta": {"redis_version": "4.0"}, "Port": 8000, "Weights": {"Passing": 10, "Warning": 1},
                   "EnableTagOverride": false, "Namespace": "default"},
       "Checks": [{"Node": "foobar", "CheckID": "service:redis", "Status": "passing", "Output": ""}]},
      {"Node": {"Node": "other", "Address": "fd00::7"},
       "Service": {"ID": "redis", "Address": "", "Port": 8001, "Weights": {"Passing": 1, "Warning": 1}},
       "Checks": []},
      {"Node": {"Node": "third", "Address": "node.internal"}, "Service": {"Port": 8002}}
    ]"#;

    #[test]
    fn service_address_comes_before_that_of_the_node() {
        let found = parse(ANSWER, false, "/ws").unwrap();
        let all: Vec<_> = found.iter().map(|one| (one.url.as_str(), one.weight)).collect();
        assert_eq!(
            all,
            [("ws://10.1.10.99:8000/ws", 10), ("ws://[fd00::7]:8001/ws", 1), ("ws://node.internal:8002/ws", 1)]
        );
        assert_eq!(parse(ANSWER, true, "").unwrap()[0].url, "wss://10.1.10.99:8000");
        assert_eq!(parse("[]", false, "").unwrap(), []);
        for wrong in ["", "{}", "[{\"Node\": {}}]", "rpc error: No cluster leader", &ANSWER[..ANSWER.len() - 2]] {
            assert!(parse(wrong, false, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn index_that_goes_backwards_starts_anew() {
        assert_eq!(follow(0, 7), (7, PAUSE));
        assert_eq!(follow(7, 7), (7, PAUSE));
        assert_eq!(follow(7, 9), (9, PAUSE));
        assert_eq!(follow(9, 8), (0, RESET));
        assert_eq!(follow(9, 0), (0, RESET));
        assert_eq!(follow(0, 0), (0, RESET));
    }
}
