//! Decisions about a session, as pure functions of what is known: no socket, clock, thread or log.

pub mod balance;
pub mod route;
