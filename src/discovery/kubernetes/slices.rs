//! EndpointSlices: the list, the events of a watch, and the endpoints that they add up to. Pure.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/>
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>

use super::super::{Found, url};
use crate::config::discovery::Port as Wanted;
use crate::policy::balance::ENDPOINTS_MAX;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// HTTP status, and code of an error in a watch: the version is too old, list again.
pub const GONE: u16 = 410;

/// Slices of a service: by default they have up to 100 endpoints.
const SLICES_MAX: usize = 1024;
/// A pod with both families of addresses is in two slices.
const FAMILIES: usize = 2;

/// The slices of a service at one version.
#[derive(Debug, Default)]
pub struct Slices {
    by_name: BTreeMap<String, Slice>,
    /// Where a watch begins; `None`: list first.
    version: Option<String>,
}

/// What an event has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Slices,
    /// Only the version.
    Nothing,
    /// The version is gone: list again.
    Expired,
}

#[derive(Debug, Deserialize)]
struct List {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_null")]
    items: Vec<Slice>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    #[serde(default, deserialize_with = "or_null")]
    endpoints: Vec<Endpoint>,
    /// Without any, endpoints have all ports.
    #[serde(default, deserialize_with = "or_null")]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    #[serde(default, deserialize_with = "or_null")]
    addresses: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    conditions: Conditions,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

/// An error in a watch.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// Go writes an empty list as `null`.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Slices {
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The version is gone. The slices stay until the next list.
    pub fn expire(&mut self) {
        self.version = None;
    }

    /// Replaces everything by a list.
    pub fn list(&mut self, text: &str) -> Result<(), String> {
        let list: List = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if list.metadata.resource_version.is_empty() {
            return Err("the list has no resourceVersion".to_owned());
        }
        self.by_name = list.items.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
        self.version = Some(list.metadata.resource_version);
        self.check_size()
    }

    /// Applies one line of a watch.
    pub fn event(&mut self, line: &str) -> Result<Change, String> {
        let event: Event = serde_json::from_str(line).map_err(|e| e.to_string())?;
        if event.kind == "ERROR" {
            let status: Status = serde_json::from_value(event.object).map_err(|e| e.to_string())?;
            if status.code != GONE {
                return Err(format!("the watch ended with status {}: {}", status.code, status.message));
            }
            self.expire();
            return Ok(Change::Expired);
        }
        let slice: Slice = serde_json::from_value(event.object).map_err(|e| e.to_string())?;
        self.version = Some(slice.metadata.resource_version.clone());
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => drop(self.by_name.insert(slice.metadata.name.clone(), slice)),
            "DELETED" => drop(self.by_name.remove(&slice.metadata.name)),
            "BOOKMARK" => return Ok(Change::Nothing),
            other => return Err(format!("an event of type \"{}\"", other.escape_debug())),
        }
        self.check_size()?;
        Ok(Change::Slices)
    }

    /// What a watch adds up to has a limit, too.
    fn check_size(&self) -> Result<(), String> {
        let endpoints: usize = self.by_name.values().map(|slice| slice.endpoints.len()).sum();
        match self.by_name.len() > SLICES_MAX || endpoints > FAMILIES * ENDPOINTS_MAX {
            false => Ok(()),
            true => Err(format!("{endpoints} endpoints in {} slices are too many", self.by_name.len())),
        }
    }

    /// The endpoints that are ready; where none is, those that still serve. Of a service with both
    /// families its IPv4 addresses: the others are the same pods.
    pub fn found(&self, wanted: Option<&Wanted>, tls: bool, path: &str) -> Result<Vec<Found>, String> {
        let (mut ready, mut serving) = (Vec::new(), Vec::new());
        let families = ["IPv4", "IPv6", "FQDN"];
        for family in families {
            for slice in self.by_name.values().filter(|slice| slice.address_type == family) {
                slice.found(wanted, tls, path, (&mut ready, &mut serving))?;
            }
            if !ready.is_empty() {
                return Ok(ready);
            }
        }
        Ok(serving)
    }
}

impl Slice {
    fn found(
        &self,
        wanted: Option<&Wanted>,
        tls: bool,
        path: &str,
        (ready, serving): (&mut Vec<Found>, &mut Vec<Found>),
    ) -> Result<(), String> {
        for endpoint in &self.endpoints {
            let port = self.port(wanted)?;
            // Addresses of one endpoint are interchangeable: the first is used.
            let (Some(address), Some(port)) = (endpoint.addresses.first(), port) else { continue };
            let found = Found { priority: 0, url: url(tls, address, port, path), weight: 1 };
            let Conditions { ready: is_ready, serving: serves, terminating } = &endpoint.conditions;
            // Unknown counts as ready, and what is not known to serve serves if it is ready.
            if is_ready.unwrap_or(true) {
                ready.push(found);
            } else if serves.unwrap_or(false) && terminating.unwrap_or(false) {
                serving.push(found);
            }
        }
        Ok(())
    }

    /// The port that is wanted; `None` if this slice does not have it.
    fn port(&self, wanted: Option<&Wanted>) -> Result<Option<u16>, String> {
        match (wanted, self.ports.as_slice()) {
            (Some(Wanted::Name(name)), ports) => {
                Ok(ports.iter().find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.port))
            }
            (Some(Wanted::Number(number)), []) => Ok(Some(*number)),
            (Some(Wanted::Number(number)), ports) => {
                Ok(ports.iter().any(|port| port.port == Some(*number)).then_some(*number))
            }
            (None, [port]) => Ok(port.port),
            (None, ports) => Err(format!("the service has {} ports; set port to one of them", ports.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server answers, shortened.
    fn slice(name: &str, version: u64, endpoints: &str) -> String {
        format!(
            r#"{{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {{"name": "{name}",
            "namespace": "default", "resourceVersion": "{version}", "labels":
            {{"kubernetes.io/service-name": "chat"}}}}, "addressType": "IPv4", "endpoints": {endpoints},
            "ports": [{{"name": "ws", "port": 9000, "protocol": "TCP"}},
                      {{"name": "metrics", "port": 9901, "protocol": "TCP"}}]}}"#
        )
    }

    fn endpoint(address: &str, conditions: &str) -> String {
        format!(r#"{{"addresses": ["{address}"], "conditions": {conditions}, "nodeName": "n", "targetRef": {{}}}}"#)
    }

    const READY: &str = r#"{"ready": true, "serving": true, "terminating": false}"#;
    const TERMINATING: &str = r#"{"ready": false, "serving": true, "terminating": true}"#;

    fn list(items: &[String]) -> Slices {
        let mut slices = Slices::default();
        let text = format!(r#"{{"metadata": {{"resourceVersion": "100"}}, "items": [{}]}}"#, items.join(", "));
        slices.list(&text).unwrap();
        slices
    }

    fn urls(slices: &Slices) -> Vec<String> {
        let found = slices.found(Some(&Wanted::Name("ws".into())), false, "").unwrap();
        found.into_iter().map(|one| one.url).collect()
    }

    fn event(kind: &str, object: &str) -> String {
        format!(r#"{{"type": "{kind}", "object": {object}}}"#)
    }

    #[test]
    fn slices_add_up_and_follow_events() {
        let one = |address| format!("[{}]", endpoint(address, READY));
        let mut slices = list(&[slice("a", 90, &one("10.0.0.1")), slice("b", 91, &one("10.0.0.2"))]);
        assert_eq!(slices.version(), Some("100"));
        assert_eq!(urls(&slices), ["ws://10.0.0.1:9000", "ws://10.0.0.2:9000"]);
        let change = slices.event(&event("MODIFIED", &slice("b", 101, &one("10.0.0.3"))));
        assert_eq!((change, slices.version()), (Ok(Change::Slices), Some("101")));
        slices.event(&event("ADDED", &slice("c", 102, &one("10.0.0.4")))).unwrap();
        slices.event(&event("DELETED", &slice("a", 103, &one("10.0.0.1")))).unwrap();
        assert_eq!(urls(&slices), ["ws://10.0.0.3:9000", "ws://10.0.0.4:9000"]);
        let bookmark = r#"{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata":
            {"resourceVersion": "200", "creationTimestamp": null}, "addressType": "", "endpoints": null, "ports": null}"#;
        assert_eq!(slices.event(&event("BOOKMARK", bookmark)), Ok(Change::Nothing));
        assert_eq!((slices.version(), urls(&slices).len()), (Some("200"), 2));
        let gone = r#"{"kind": "Status", "status": "Failure", "message": "too old resource version: 1 (2)",
            "reason": "Expired", "code": 410}"#;
        assert_eq!(slices.event(&event("ERROR", gone)), Ok(Change::Expired));
        assert_eq!((slices.version(), urls(&slices).len()), (None, 2), "the endpoints stay");
        let error = slices.event(&event("ERROR", r#"{"kind": "Status", "code": 500, "message": "etcd"}"#));
        assert!(error.is_err_and(|e| e.contains("500") && e.contains("etcd")));
        for wrong in ["", "{", "[]", &event("WHAT", &slice("x", 1, "[]")), &event("ADDED", "{}")] {
            assert!(slices.event(wrong).is_err(), "{wrong}");
        }
        assert!(slices.list("{\"metadata\": {}}").is_err());
    }

    #[test]
    fn ready_ones_are_used_and_terminating_ones_in_need() {
        let all = [
            endpoint("10.0.0.1", READY),
            endpoint("10.0.0.2", "{}"),
            endpoint("10.0.0.3", "null"),
            endpoint("10.0.0.4", TERMINATING),
            endpoint("10.0.0.5", r#"{"ready": false, "serving": false, "terminating": true}"#),
            endpoint("10.0.0.6", r#"{"ready": false}"#),
        ];
        let of = |list: &[String]| slice("a", 1, &format!("[{}]", list.join(",")));
        let ready = ["ws://10.0.0.1:9000", "ws://10.0.0.2:9000", "ws://10.0.0.3:9000"];
        assert_eq!(urls(&list(&[of(&all)])), ready);
        assert_eq!(urls(&list(&[of(&all[3..])])), ["ws://10.0.0.4:9000"]);
        assert!(urls(&list(&[of(&all[4..])])).is_empty() && urls(&list(&[slice("a", 1, "null")])).is_empty());
    }

    #[test]
    fn port_is_chosen_by_name_or_number() {
        let slices = list(&[slice("a", 1, &format!("[{}]", endpoint("10.0.0.1", READY)))]);
        let with = |wanted: Option<Wanted>| {
            let found = slices.found(wanted.as_ref(), true, "/x");
            found.map(|found| found.into_iter().map(|one| one.url).collect::<Vec<_>>())
        };
        let expected = |port| Ok(vec![format!("wss://10.0.0.1:{port}/x")]);
        assert_eq!(with(Some(Wanted::Name("metrics".into()))), expected(9901));
        assert_eq!(with(Some(Wanted::Number(9000))), expected(9000));
        assert_eq!(with(Some(Wanted::Number(1))), Ok(Vec::new()));
        assert!(with(None).is_err_and(|e| e.contains("2 ports")));
    }

    #[test]
    fn number_of_endpoints_is_limited() {
        let many = vec![endpoint("10.0.0.1", READY); 1_000].join(",");
        let mut slices = list(&[]);
        for n in 0..8 {
            slices.event(&event("ADDED", &slice(&n.to_string(), 1, &format!("[{many}]")))).unwrap();
        }
        let error = slices.event(&event("ADDED", &slice("8", 1, &format!("[{many}]"))));
        assert_eq!(error, Err("9000 endpoints in 9 slices are too many".into()));
    }

    #[test]
    fn pods_with_both_families_are_used_once() {
        let four = slice("a", 1, &format!("[{}]", endpoint("10.0.0.1", READY)));
        let six = slice("b", 1, &format!("[{}]", endpoint("fd00::1", READY))).replace("IPv4", "IPv6");
        assert_eq!(urls(&list(&[six.clone(), four])), ["ws://10.0.0.1:9000"]);
        assert_eq!(urls(&list(&[six])), ["ws://[fd00::1]:9000"]);
    }
}
