//! Measurements of proxies, side by side: [`cost`] (CPU per message), [`memory`] (per idle
//! session), [`syscalls`] (per message), [`compare`] (latency that a proxy adds). [`target`] starts
//! the proxies, [`workload`] names what they are measured with, [`rounds`] loads them in turn,
//! [`idle`] has clients of plain HTTP, [`relay`] is the bare relay they are compared with.

pub mod compare;
pub mod cost;
pub mod idle;
pub mod memory;
pub mod relay;
pub mod rounds;
pub mod syscalls;
pub mod target;
pub mod workload;
