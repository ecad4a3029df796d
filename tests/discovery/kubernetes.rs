//! Kubernetes: list and watch, versions that are gone, streams that are cut, credentials.

use super::api::{Api, Call, Chunks, file};
use super::common::{Proxy, eventually, listen, pki::PKI, shim::before_plain, temp_path};
use super::{Held, config, metric, reaches, until};
use std::net::SocketAddr;
use std::path::PathBuf;

const RESOURCE: &str = "/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices";

/// A folder as a pod has it.
fn service_account(token: &str) -> PathBuf {
    let folder = temp_path("account");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("token"), token).unwrap();
    std::fs::write(folder.join("namespace"), "chat").unwrap();
    std::fs::copy(PKI.ca(), folder.join("ca.crt")).unwrap();
    folder
}

fn discover(api: &Api) -> String {
    let (folder, url) = (service_account("t0"), api.url());
    let account = format!("service_account = {folder:?}, server = \"{url}\"");
    config(&format!("discover = {{ kubernetes = {{ service = \"front\", port = \"ws\", {account} }} }}"))
}

fn slice(name: &str, version: u32, addresses: &[SocketAddr]) -> String {
    let endpoint = |addr: &SocketAddr| {
        let conditions = r#"{"ready": true, "serving": true, "terminating": false}"#;
        format!(r#"{{"addresses": ["{}"], "conditions": {conditions}}}"#, addr.ip())
    };
    let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    let port = addresses.first().map_or(1, SocketAddr::port);
    format!(
        r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}},"addressType":"IPv4","endpoints":[{}],"ports":[{{"name":"ws","port":{port}}},{{"name":"metrics","port":2}}]}}"#,
        endpoints.join(",")
    )
}

fn list(call: Call, version: u32, slices: &[String]) {
    let items = slices.join(",");
    let kind = r#""kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1""#;
    call.ok(&format!(r#"{{{kind},"metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#));
}

fn event(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(version: u32) -> String {
    let object = format!(
        r#"{{"kind":"EndpointSlice","metadata":{{"resourceVersion":"{version}"}},"addressType":"","endpoints":null,"ports":null}}"#
    );
    event("BOOKMARK", &object)
}

/// The next watch, which begins at a version.
#[track_caller]
fn watch(api: &Api, version: &str) -> Chunks {
    let call = api.next();
    assert_eq!(call.path(), RESOURCE);
    assert_eq!((call.query("watch").as_deref(), call.query("resourceVersion").as_deref()), (Some("1"), Some(version)));
    assert_eq!(call.query("allowWatchBookmarks").as_deref(), Some("true"));
    assert_eq!(call.query("labelSelector").as_deref(), Some("kubernetes.io/service-name=front"));
    call.stream()
}

#[track_caller]
fn listing(api: &Api) -> Call {
    let call = api.next();
    assert_eq!((call.path(), call.query("watch")), (RESOURCE, None));
    assert_eq!(call.query("labelSelector").as_deref(), Some("kubernetes.io/service-name=front"));
    call
}

fn started(api: &Api, version: u32, slices: &[String]) -> Proxy {
    let toml = discover(api);
    let starting = std::thread::spawn(move || Proxy::start(&toml));
    list(listing(api), version, slices);
    starting.join().unwrap()
}

#[test]
fn list_is_followed_by_a_watch() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let proxy = started(&api, 100, &[slice("s1", 90, &[a])]);
    let mut stream = watch(&api, "100");
    let mut held = Held::open(&proxy, &one);
    // An event may come in pieces.
    let added = event("ADDED", &slice("s2", 101, &[b]));
    stream.send(&added[..50]);
    stream.send(&added[50..]);
    until(&proxy, "endpoints", "kubernetes", 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    stream.send(&event("DELETED", &slice("s1", 102, &[a])));
    until(&proxy, "endpoints", "kubernetes", 1.0);
    reaches(&proxy, &[&two], &[&one]);
    held.still_works();
    stream.send(&bookmark(500));
    // The server ends each watch after a while.
    stream.end();
    let mut stream = watch(&api, "500");
    stream.send(&event("MODIFIED", &slice("s2", 501, &[])));
    proxy.said.wait_for("it reports no endpoints");
    stream.send(&event("MODIFIED", &slice("s2", 502, &[a])));
    until(&proxy, "changes_total", "kubernetes", 4.0);
    reaches(&proxy, &[&one], &[&two]);
    held.still_works();
}

#[test]
fn stream_that_is_cut_in_a_line_continues_after_the_last_whole_one() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let proxy = started(&api, 100, &[slice("s1", 90, &[a])]);
    let mut stream = watch(&api, "100");
    stream.send(&bookmark(110));
    let added = event("ADDED", &slice("s2", 120, &[b]));
    stream.cut(&added[..added.len() - 20]);
    // Nothing of the cut event counts: neither its endpoints nor its version.
    let mut stream = watch(&api, "110");
    assert_eq!(metric(&proxy, "endpoints", "kubernetes"), 1.0);
    stream.send(&added);
    until(&proxy, "endpoints", "kubernetes", 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    assert_eq!(metric(&proxy, "failures_total", "kubernetes"), 0.0, "a watch may end at any time");
}

#[test]
fn gone_versions_are_listed_again() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let proxy = started(&api, 100, &[slice("s1", 90, &[a])]);
    // In the stream.
    let gone = r#"{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}"#;
    watch(&api, "100").send(&event("ERROR", gone));
    let call = listing(&api);
    reaches(&proxy, &[&one], &[&two]);
    list(call, 200, &[slice("s2", 150, &[b])]);
    until(&proxy, "changes_total", "kubernetes", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    // As a status.
    let call = api.next();
    assert_eq!(call.query("resourceVersion").as_deref(), Some("200"));
    call.answer("410 Gone", "", gone);
    list(listing(&api), 300, &[slice("s2", 150, &[b])]);
    let _stream = watch(&api, "300");
    assert_eq!(metric(&proxy, "changes_total", "kubernetes"), 2.0, "the same list again is not applied");
    assert_eq!(metric(&proxy, "failures_total", "kubernetes"), 0.0);
}

#[test]
fn burst_of_events_is_applied_once() {
    let backends: Vec<_> = (0..10).map(|_| listen()).collect();
    let api = Api::start();
    let proxy = started(&api, 100, &[slice("s0", 90, &[backends[0].1])]);
    let mut stream = watch(&api, "100");
    let events = backends.iter().enumerate().skip(1);
    let events: String =
        events.map(|(n, b)| event("ADDED", &slice(&format!("s{n}"), 101 + n as u32, &[b.1]))).collect();
    stream.send(&events);
    until(&proxy, "endpoints", "kubernetes", 10.0);
    assert_eq!(metric(&proxy, "changes_total", "kubernetes"), 2.0);
    let listeners: Vec<_> = backends.iter().map(|(listener, _)| listener).collect();
    reaches(&proxy, &listeners, &[]);
}

#[test]
fn failures_keep_the_endpoints_and_begin_with_a_list() {
    let (one, a) = listen();
    let api = Api::start();
    let proxy = started(&api, 100, &[slice("s1", 90, &[a])]);
    watch(&api, "100").send("not an event\n");
    listing(&api).answer("403 Forbidden", "", r#"{"kind":"Status","code":403}"#);
    until(&proxy, "failures_total", "kubernetes", 2.0);
    reaches(&proxy, &[&one], &[]);
    list(listing(&api), 200, &[slice("s1", 90, &[a])]);
    proxy.said.wait_for("kubernetes has recovered");
    let error = r#"{"kind":"Status","message":"etcdserver: no leader","code":500}"#;
    watch(&api, "200").send(&event("ERROR", error));
    until(&proxy, "failures_total", "kubernetes", 3.0);
    reaches(&proxy, &[&one], &[]);
    let _again = listing(&api);
}

#[test]
fn service_account_is_used_over_tls_and_its_token_read_again() {
    let (one, a) = listen();
    let api = Api::start();
    let folder = service_account("first-token\n");
    let port = before_plain(api.addr).port();
    let kubernetes =
        format!("kubernetes = {{ service = \"front\", port = {}, service_account = {folder:?} }}", a.port());
    let path = temp_path("toml");
    std::fs::write(&path, config(&format!("discover = {{ {kubernetes} }}"))).unwrap();
    let starting = std::thread::spawn(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_framegate"));
        let command = command.arg("run").arg("-c").arg(&path).env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        Proxy::spawn(command.env("KUBERNETES_SERVICE_PORT", port.to_string()), path)
    });
    let call = listing(&api);
    assert_eq!(call.header("Authorization"), Some("Bearer first-token"));
    list(call, 100, &[slice("s1", 90, &[a])]);
    let proxy = starting.join().unwrap();
    reaches(&proxy, &[&one], &[]);
    let call = api.next();
    std::fs::write(folder.join("token"), "second-token").unwrap();
    call.stream().end();
    let call = api.next();
    assert_eq!(
        (call.header("Authorization"), call.query("watch").as_deref()),
        (Some("Bearer second-token"), Some("1"))
    );
    assert!(!proxy.said.all().join("\n").contains("-token"));
}

#[test]
fn kubeconfig_has_server_token_and_certificates() {
    let (one, a) = listen();
    let api = Api::start();
    let (client, port) = (PKI.client("kube"), before_plain(api.addr).port());
    let kubeconfig = file(&format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u, namespace: chat}}}}]\n\
         clusters:\n- name: c\n  cluster:\n    server: https://localhost:{port}\n    certificate-authority: {}\n\
         users:\n- name: u\n  user:\n    token: sesame\n    client-certificate: {}\n    client-key: {}\n",
        PKI.ca().display(),
        client.cert.display(),
        client.key.display(),
    ));
    let toml = config(&format!(
        "discover = {{ kubernetes = {{ service = \"front\", port = \"ws\", kubeconfig = {kubeconfig:?} }} }}"
    ));
    let starting = std::thread::spawn(move || Proxy::start(&toml));
    let call = listing(&api);
    assert_eq!(call.header("Authorization"), Some("Bearer sesame"));
    list(call, 100, &[slice("s1", 90, &[a])]);
    let proxy = starting.join().unwrap();
    reaches(&proxy, &[&one], &[]);
    // A key that does not belong to the certificate is an error, not a panic.
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let wrong = text.replace(&*client.key.to_string_lossy(), &PKI.server().key.to_string_lossy());
    std::fs::write(&kubeconfig, wrong).unwrap();
    api.next().stream().cut("{");
    api.next().answer("500 Internal Server Error", "", "");
    eventually("it fails", || (metric(&proxy, "failures_total", "kubernetes") >= 2.0).then_some(()));
    proxy.said.wait_for("kubernetes fails");
    assert!(!proxy.said.all().join("\n").contains("sesame"));
    assert!(!proxy.said.all().join("\n").contains("panicked"));
    reaches(&proxy, &[&one], &[]);
}
