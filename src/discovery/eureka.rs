//! Eureka: the instances of an application that are UP, asked for at an interval.
//!
//! <https://github.com/Netflix/eureka/wiki/Eureka-REST-operations>

use super::http::{Client, Header, PROMPT, Patience, body};
use super::{Answer, Found, Slot, Source, url};
use crate::config::discovery::Eureka as Config;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

pub struct Eureka {
    config: Config,
    tls: bool,
    path: String,
    client: Client,
}

impl Eureka {
    pub fn new(config: &Config, tls: bool, path: &str, slot: &Slot) -> Result<Eureka, String> {
        let client = Client::new(&config.api, slot)?;
        Ok(Eureka { config: config.clone(), tls, path: path.to_owned(), client })
    }
}

impl Source for Eureka {
    fn next(&mut self) -> Result<Answer, String> {
        let path = format!("/apps/{}", self.config.app);
        let response = self.client.get(&path, &[], Header::Bearer, Patience { head: PROMPT, body: PROMPT })?;
        let found = match response.status().as_u16() {
            // An application without instances.
            404 => Vec::new(),
            _ => {
                let text = body(&path, response)?;
                parse(&text, self.tls, &self.path).map_err(|e| format!("GET {path}: {e}"))?
            }
        };
        Ok(Answer { found: Some(found), again: Duration::from_millis(self.config.interval_ms) })
    }
}

#[derive(Debug, Deserialize)]
struct Apps {
    application: Application,
}

#[derive(Debug, Deserialize)]
struct Application {
    #[serde(default, deserialize_with = "one_or_more")]
    instance: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    #[serde(default)]
    ip_addr: String,
    #[serde(default)]
    host_name: String,
    #[serde(default)]
    status: String,
    port: Option<Port>,
    secure_port: Option<Port>,
    /// Has values of all types, among them strings with numbers.
    #[serde(default)]
    metadata: HashMap<String, Value>,
}

/// `{"$": 8080, "@enabled": "true"}`; both as strings in some versions.
#[derive(Debug, Deserialize)]
struct Port {
    #[serde(rename = "$")]
    number: Value,
    #[serde(rename = "@enabled")]
    enabled: Value,
}

impl Port {
    /// If it is enabled.
    fn number(&self) -> Option<u16> {
        let enabled = self.enabled.as_bool().unwrap_or(self.enabled.as_str() == Some("true"));
        number(&self.number).filter(|_| enabled).and_then(|number| u16::try_from(number).ok())
    }
}

/// A number, also as a string.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
}

/// A list; a single element without one, as converters from XML write it.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Instance>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Many(Vec<Instance>),
        One(Box<Instance>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Many(instances) => instances,
        Either::One(instance) => vec![*instance],
    })
}

fn parse(text: &str, tls: bool, path: &str) -> Result<Vec<Found>, String> {
    let apps: Apps = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let up = apps.application.instance.into_iter().filter(|instance| instance.status == "UP");
    let found = |instance: Instance| {
        let port = if tls { &instance.secure_port } else { &instance.port };
        let port = port.as_ref().and_then(Port::number)?;
        let host = if instance.ip_addr.is_empty() { &instance.host_name } else { &instance.ip_addr };
        let weight = instance.metadata.get("weight").and_then(number).unwrap_or(1);
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        Some(Found { priority: 0, url: url(tls, host, port, path), weight })
    };
    Ok(up.filter_map(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Eureka 1.10 of Spring Cloud answers, shortened.
    const ANSWER: &str = r#"{"application": {"name": "CHAT", "instance": [
      {"instanceId": "a:chat:8080", "hostName": "a.internal", "app": "CHAT", "ipAddr": "10.0.0.1", "status": "UP",
       "overriddenStatus": "UNKNOWN", "port": {"$": 8080, "@enabled": "true"},
       "securePort": {"$": 443, "@enabled": "false"}, "countryId": 1,
       "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
       "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 90}, "metadata": {"weight": "5", "zone": "a"},
       "vipAddress": "chat", "lastUpdatedTimestamp": "1700000000000", "actionType": "ADDED"},
      {"instanceId": "b", "hostName": "b.internal", "ipAddr": "10.0.0.2", "status": "UP",
       "port": {"$": "8081", "@enabled": "false"}, "securePort": {"$": "8443", "@enabled": true}, "metadata":
       {"@class": "java.util.Collections$EmptyMap"}},
      {"instanceId": "c", "hostName": "c.internal", "ipAddr": "10.0.0.3", "status": "OUT_OF_SERVICE",
       "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 8443, "@enabled": "true"}}
    ]}}"#;

    fn urls(text: &str, tls: bool) -> Vec<(String, u32)> {
        parse(text, tls, "").unwrap().into_iter().map(|one| (one.url, one.weight)).collect()
    }

    #[test]
    fn instances_that_are_up_are_used_with_the_port_that_is_enabled() {
        assert_eq!(urls(ANSWER, false), [("ws://10.0.0.1:8080".to_owned(), 5)]);
        assert_eq!(urls(ANSWER, true), [("wss://10.0.0.2:8443".to_owned(), 1)]);
    }

    #[test]
    fn a_single_instance_may_be_no_list() {
        let one = r#"{"application": {"name": "X", "instance": {"hostName": "h", "status": "UP",
                      "port": {"$": 1, "@enabled": "true"}}}}"#;
        assert_eq!(urls(one, false), [("ws://h:1".to_owned(), 1)]);
        assert_eq!(urls(r#"{"application": {"name": "X"}}"#, false), []);
        for wrong in ["", "{}", "<application/>", &ANSWER[..300]] {
            assert!(parse(wrong, false, "").is_err(), "{wrong}");
        }
    }
}
