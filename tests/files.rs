//! Files of a directory: what is found, what is not, what the response says, and how it is sent.
#![cfg(feature = "files")]

mod common;

#[path = "files/clients.rs"]
mod clients;
#[path = "files/conditions.rs"]
mod conditions;
#[path = "files/hostile.rs"]
mod hostile;
#[path = "files/routes.rs"]
mod routes;
#[path = "files/site.rs"]
mod site;
#[path = "files/streams.rs"]
mod streams;
