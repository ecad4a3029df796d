//! What policy does for a handshake whose route asks a server: `cargo bench --bench asking`. The
//! question is the request that is written and the key of its answer; with the answer, the request
//! is judged again from the start. Waiting and sockets are not in it.

mod common;

use common::{bench, facts_of};
use framegate::config::{self, Snapshot};
use framegate::policy::ask::Answer;
use framegate::policy::limit::Permits;
use framegate::policy::{Policy, Verdict, decide};
use framegate::proto::call::CallResponse;
use framegate::proto::http1::parse_request;
use std::hint::black_box;
use std::sync::Arc;

const REQUEST: &str = "GET /chat?room=7 HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Origin: https://chat.example.com\r\nUser-Agent: bench\r\nAccept-Language: en\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n";

fn snapshot(auth: &str) -> Snapshot {
    let route = "[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";
    let route = if auth.is_empty() { route.to_owned() } else { format!("{route}auth = \"a\"\n") };
    let auth = if auth.is_empty() { String::new() } else { format!("[[auth]]\nname = \"a\"\n{auth}") };
    config::parse(&format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{route}{auth}"), "bench").expect("valid")
}

fn bench_auth(name: &str, auth: &str, response: &CallResponse) {
    let (snapshot, sessions) = (snapshot(auth), Permits::new(1_000));
    let request = parse_request(REQUEST.as_bytes()).expect("a valid request");
    let facts = facts_of(&request);
    let policy = Policy { routes: &snapshot.routes, sessions: &sessions, revoked: &snapshot.revoked, blocks: None };
    let question = match decide(&facts, &policy, None) {
        Verdict::Ask(question) => Some(question),
        Verdict::Allow(_) => None,
        verdict => panic!("{name}: {verdict:?}"),
    };
    bench(&format!("{name}, until the question"), 5_000, || {
        black_box(decide(black_box(&facts), &policy, None));
    });
    let Some(question) = question else { return };
    let answer = Answer::Response { response: Arc::new(response.clone()), at_unix_ms: facts.unix_ms };
    bench(&format!("{name}, with the answer"), 5_000, || {
        let verdict = decide(black_box(&facts), &policy, Some((&question, answer.clone())));
        assert!(matches!(verdict, Verdict::Allow(_)), "{name}");
        black_box(verdict);
    });
}

fn main() {
    bench_auth("no credentials", "", &CallResponse::default());
    let copy = "copy = [\"X-User\", \"X-Groups\"]\nidentity_header = \"X-User\"\n";
    let forward = format!("type = \"forward\"\nurl = \"http://127.0.0.1:9091/verify\"\n{copy}");
    let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let fields = vec![field("X-User", "ada"), field("X-Groups", "chat,staff"), field("Date", "today")];
    let response = CallResponse { status: 200, fields, body: Vec::new() };
    bench_auth("forward", &forward, &response);
    bench_auth("forward with a cache", &format!("{forward}cache = [\"Cookie\"]\n"), &response);
    let body = "{\"exp\":1800000300,\"iat\":1800000000,\"jti\":\"0c2a\",\"iss\":\"https://sso/realms/a\",\
                \"aud\":\"chat\",\"sub\":\"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\",\
                \"typ\":\"Bearer\",\"azp\":\"web\",\"acr\":\"1\",\
                \"realm_access\":{\"roles\":[\"user\",\"offline_access\"]},\"scope\":\"openid chat\",\
                \"preferred_username\":\"ada\",\"client_id\":\"web\",\"username\":\"ada\",\"active\":true}";
    let response = CallResponse { status: 200, fields: Vec::new(), body: body.into() };
    let introspection = "type = \"introspection\"\nurl = \"http://127.0.0.1:9091/introspect\"\naudience = [\"chat\"]\n\
                         roles_claim = \"realm_access.roles\"\n";
    bench_auth("introspection", introspection, &response);
}
