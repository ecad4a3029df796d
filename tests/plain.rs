//! Plain HTTP through the proxy: requests of any method on connections that live on, over
//! connections to the upstream that are used again; and what must not pass.

mod common;

#[path = "plain/desync.rs"]
mod desync;
#[path = "plain/drain.rs"]
mod drain;
#[path = "plain/go.rs"]
mod go;
#[path = "plain/hostile.rs"]
mod hostile;
#[path = "plain/load.rs"]
mod load;
#[path = "plain/peers.rs"]
mod peers;
#[path = "plain/recorder.rs"]
mod recorder;
#[path = "plain/reuse.rs"]
mod reuse;
#[path = "plain/routes.rs"]
mod routes;
#[path = "plain/streams.rs"]
mod streams;
#[path = "plain/torn.rs"]
mod torn;
#[path = "plain/yields.rs"]
mod yields;
