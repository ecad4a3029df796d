//! stub
use std::net::IpAddr;
pub fn parse_sources(t: &str) -> Result<Vec<IpAddr>, String> {
    t.split(',').map(|t| t.parse().map_err(|_| "bad address".to_string())).collect()
}
pub fn check(_c: usize, _d: usize, _s: &[IpAddr]) -> Result<(), String> {
    crate::proc::raise_descriptor_limit().map(|_| ()).map_err(|e| e.to_string())
}
