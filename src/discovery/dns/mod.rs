//! DNS, asked directly: getaddrinfo gives neither TTLs nor SRV records. UDP first, TCP where an
//! answer was truncated; each query has a random id and a port of its own, and goes to each server
//! in turn.

mod message;

use super::{Answer, Found, Slot, Source, url};
use crate::config::discovery::{Dns as Config, Query};
use message::{Failure, Kind, Records, Service, answer, query};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Times that each server is tried.
const ROUNDS: usize = 2;
/// The range of TTLs that are followed, in seconds.
const TTL: (u32, u32) = (1, 3600);
/// When to ask again for a name without records.
const NEGATIVE_S: u32 = 5;
/// SRV records of one answer that are followed.
const TARGETS_MAX: usize = 256;
/// As the resolver of the system.
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;

pub struct Dns {
    config: Config,
    tls: bool,
    path: String,
    slot: Arc<Slot>,
}

impl Dns {
    pub fn new(config: Config, tls: bool, path: String, slot: Arc<Slot>) -> Dns {
        Dns { config, tls, path, slot }
    }

    fn found(&self, address: IpAddr, service: &Service) -> Found {
        let url = url(self.tls, &address.to_string(), service.port, &self.path);
        Found { priority: service.priority.into(), url, weight: service.weight.into() }
    }
}

impl Source for Dns {
    fn next(&mut self) -> Result<Answer, String> {
        // Read each time: the file may change.
        let servers = match self.config.servers.as_slice() {
            [] => resolv_conf(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
            servers => servers.to_vec(),
        };
        let client = Client { servers, timeout: Duration::from_millis(self.config.timeout_ms), slot: &self.slot };
        let (services, mut ttl) = match &self.config.query {
            Query::Address { name, port } => {
                (vec![Service { priority: 0, weight: 1, port: *port, target: name.clone() }], None)
            }
            Query::Srv { name } => {
                let records = client.ask(name, Kind::Srv)?;
                (records.services, records.ttl)
            }
        };
        if services.len() > TARGETS_MAX {
            return Err(format!("{} SRV records are too many, at most {TARGETS_MAX}", services.len()));
        }
        let mut found = Vec::new();
        for service in &services {
            let addresses = client.addresses(&service.target)?;
            ttl = [ttl, addresses.ttl].into_iter().flatten().min();
            found.extend(usable(addresses.addresses).into_iter().map(|address| self.found(address, service)));
        }
        let ttl = ttl.unwrap_or(NEGATIVE_S).clamp(TTL.0, TTL.1);
        Ok(Answer { found: Some(found), again: Duration::from_secs(ttl.into()) })
    }
}

/// Without IPv6 addresses where this host has no route for them (RFC 6724 section 5, rule 1),
/// unless there are no others.
fn usable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    // Connecting a datagram socket looks for a route and sends nothing.
    let routed = |address: &IpAddr| {
        address.is_ipv4()
            || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok_and(|socket| socket.connect((*address, PORT)).is_ok())
    };
    let usable: Vec<IpAddr> = addresses.iter().copied().filter(routed).collect();
    if usable.is_empty() { addresses } else { usable }
}

struct Client<'a> {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    slot: &'a Slot,
}

impl Client<'_> {
    /// Both kinds of addresses of a name.
    fn addresses(&self, name: &str) -> Result<Records, String> {
        let (four, six) = (self.ask(name, Kind::A)?, self.ask(name, Kind::Aaaa)?);
        let ttl = [four.ttl, six.ttl].into_iter().flatten().min();
        Ok(Records { addresses: [four.addresses, six.addresses].concat(), ttl, ..Records::default() })
    }

    /// Asks the servers in their order until one answers.
    fn ask(&self, name: &str, kind: Kind) -> Result<Records, String> {
        let mut last = "there is no server to ask".to_owned();
        for server in self.servers.iter().cycle().take(ROUNDS * self.servers.len()) {
            if self.slot.is_stopped() {
                break;
            }
            match self.exchange(*server, name, kind) {
                Ok(records) => return Ok(records),
                Err(why) => last = format!("{server} on {name}: {why}"),
            }
        }
        Err(last)
    }

    fn exchange(&self, server: SocketAddr, name: &str, kind: Kind) -> Result<Records, String> {
        let id = random()?;
        let query = query(id, name, kind)?;
        match self.over_udp(server, &query, |message| answer(message, id, name, kind))? {
            Err(Failure::Truncated) => {
                let message = self.over_tcp(server, &query).map_err(|e| format!("over TCP: {e}"))?;
                answer(&message, id, name, kind).map_err(why)
            }
            other => other.map_err(why),
        }
    }

    /// The first answer that is one to this query.
    fn over_udp<T>(
        &self,
        server: SocketAddr,
        query: &[u8],
        read: impl Fn(&[u8]) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, String> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let failed = |e: std::io::Error| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer".to_owned(),
            _ => e.to_string(),
        };
        // Connected: the kernel drops what comes from others.
        let socket = UdpSocket::bind((any, 0)).map_err(failed)?;
        socket.connect(server).map_err(failed)?;
        socket.send(query).map_err(failed)?;
        let until = Instant::now() + self.timeout;
        let mut message = vec![0; 65_535];
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left)).map_err(failed)?;
            let n = socket.recv(&mut message).map_err(failed)?;
            match read(message.get(..n).unwrap_or_default()) {
                Err(Failure::Unrelated) if Instant::now() < until => {}
                other => return Ok(other),
            }
        }
    }

    fn over_tcp(&self, server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let len = u16::try_from(query.len()).map_err(|_| ErrorKind::InvalidInput)?;
        stream.write_all(&[&len.to_be_bytes(), query].concat())?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut message = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut message)?;
        Ok(message)
    }
}

fn why(failure: Failure) -> String {
    match failure {
        Failure::Server(why) => why,
        Failure::Truncated => "truncated over TCP".to_owned(),
        Failure::Unrelated => "an answer to another question".to_owned(),
    }
}

/// An id that cannot be guessed (RFC 5452).
fn random() -> Result<u16, String> {
    let mut bytes = [0; 2];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| format!("no random numbers: {e}"))?;
    Ok(u16::from_ne_bytes(bytes))
}

/// The servers of `resolv.conf`; without any, the one on this host.
fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let server = |words: Vec<&str>| match words.as_slice() {
        ["nameserver", address, ..] => address.parse::<IpAddr>().ok(),
        _ => None,
    };
    let mut servers: Vec<SocketAddr> = words.filter_map(server).map(|ip| (ip, PORT).into()).collect();
    servers.truncate(SERVERS_MAX);
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_system_reads_them() {
        let text = "# made by hand\n; too\nsearch internal\nnameserver 10.0.0.2\nnameserver\tfd00::53 \noptions edns0\n\
                    nameserver not-an-address\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let expected = ["10.0.0.2:53", "[fd00::53]:53", "10.0.0.3:53"].map(|text| text.parse().unwrap());
        assert_eq!(resolv_conf(text), expected);
        assert_eq!(resolv_conf(""), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn unusable_addresses_stay_if_there_are_no_others() {
        let four: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap()];
        // Reserved for documentation: no host has a route, but for a default one.
        let six: Vec<IpAddr> = vec!["2001:db8::1".parse().unwrap()];
        assert_eq!(usable(six.clone()), six);
        assert!(usable([four.clone(), six].concat()).starts_with(&four));
    }
}
