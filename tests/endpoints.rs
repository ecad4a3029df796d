//! Endpoints as clients, backends and operators see them, through real sockets: who gets which
//! session, what happens when there is no room, when backends fail, and when an endpoint goes.

#[path = "endpoints/admin.rs"]
mod admin;
mod common;
#[path = "endpoints/down.rs"]
mod down;
#[path = "endpoints/failing.rs"]
mod failing;
#[path = "endpoints/limits.rs"]
mod limits;
#[path = "endpoints/rig.rs"]
mod rig;
#[path = "endpoints/spread.rs"]
mod spread;
#[path = "endpoints/sticky.rs"]
mod sticky;
