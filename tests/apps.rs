//! Applications that use plain HTTP and WebSockets together, by the servers and clients that their
//! authors publish: Socket.IO, SockJS, GraphQL, MQTT, STOMP, SignalR, the dev server of Vite; a
//! page of many assets and an event stream in Chromium.

mod common;

#[path = "apps/events.rs"]
mod events;
#[path = "apps/pages.rs"]
mod pages;
#[path = "apps/protocols.rs"]
mod protocols;
#[allow(dead_code)] // a part is used
#[path = "plain/recorder.rs"]
mod recorder;
#[allow(dead_code)] // a part is used
#[path = "sharing/rig.rs"]
mod redis;
#[path = "apps/requests.rs"]
mod requests;
#[path = "apps/rig.rs"]
mod rig;
#[path = "apps/socket_io.rs"]
mod socket_io;
