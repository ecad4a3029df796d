//! What the host lets one process hold, compared with what a run needs, before it begins:
//! descriptors, local ports, source addresses. Raises what it may by itself; for the rest it names
//! the command that would.

use crate::proc::raise_descriptor_limit;
use std::fs::read_to_string;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Descriptors beside those of connections: standard streams, polls, files, listeners of server
/// roles.
const OTHER_DESCRIPTORS: usize = 64;
const SOURCES_MAX: usize = 4096;
/// The widest range that can be asked of the kernel without the ports of system services.
const WIDEST: &str = "1024 65535";
const WIDEST_LEN: usize = 65535 - 1024 + 1;

/// What the host has.
#[derive(Debug, Clone, Copy)]
struct Host {
    descriptors: usize,
    /// Above this even root cannot raise `descriptors`.
    descriptors_max: usize,
    /// Local ports for each pair of a source and a destination.
    ports: usize,
}

/// Raises the descriptor limit as far as it goes; the error is a sentence with the command that
/// helps. `destinations` counts addresses with port. Without `sources` the system takes one address
/// for each destination.
pub fn check(connections: usize, destinations: usize, sources: &[IpAddr]) -> Result<(), String> {
    let descriptors = raise_descriptor_limit().map_err(|e| format!("cannot raise the limit on open files: {e}"))?;
    let host = Host {
        descriptors: usize::try_from(descriptors).unwrap_or(usize::MAX),
        descriptors_max: number_in("/proc/sys/fs/nr_open").unwrap_or(usize::MAX),
        ports: ports_of_host(),
    };
    host.holds(connections, destinations.max(1) * sources.len().max(1))?;
    sources.iter().try_for_each(|source| is_local(*source))
}

/// Whether each destination can be reached from each source: both must be of one family.
pub fn check_families<'a>(
    sources: &[IpAddr],
    destinations: impl IntoIterator<Item = &'a SocketAddr>,
) -> Result<(), String> {
    for destination in destinations {
        if let Some(source) = sources.iter().find(|source| source.is_ipv4() != destination.is_ipv4()) {
            return Err(format!("{destination} cannot be reached from {source}: one is IPv4, the other IPv6"));
        }
    }
    Ok(())
}

/// `127.0.0.2,127.0.0.9`, `127.0.0.2-127.0.0.9`, `10.0.0.0/29` (its hosts), `::1`, with commas
/// between; each address once, in the order given.
pub fn parse_sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut sources: Vec<IpAddr> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = parse_part(part)?;
        let (IpAddr::V4(low), IpAddr::V4(high)) = (first, last) else {
            sources.extend(seen.insert(first).then_some(first));
            continue;
        };
        if high < low {
            return Err(format!("{part:?} ends before it begins"));
        }
        for address in low.to_bits()..=high.to_bits() {
            let address = IpAddr::V4(Ipv4Addr::from_bits(address));
            sources.extend(seen.insert(address).then_some(address));
            if sources.len() > SOURCES_MAX {
                return Err(format!("{text:?} has more than {SOURCES_MAX} addresses"));
            }
        }
    }
    Ok(sources)
}

/// First and last address.
fn parse_part(part: &str) -> Result<(IpAddr, IpAddr), String> {
    let single = |text: &str| {
        let wrong =
            || format!("{part:?} is not a source address; expected 127.0.0.2, 127.0.0.2-127.0.0.9, 10.0.0.0/29 or ::1");
        let address: IpAddr = text.trim().parse().map_err(|_| wrong())?;
        let usable = !address.is_unspecified() && !address.is_multicast();
        usable.then_some(address).ok_or_else(|| format!("{address} cannot be a source address"))
    };
    let only_v4 = || format!("{part:?} is a range of IPv6 addresses; list them one by one");
    if let Some((first, last)) = part.split_once('-') {
        let (first, last) = (single(first)?, single(last)?);
        return if first.is_ipv4() && last.is_ipv4() { Ok((first, last)) } else { Err(only_v4()) };
    }
    let Some((network, prefix)) = part.split_once('/') else {
        return single(part).map(|address| (address, address));
    };
    let IpAddr::V4(network) = single(network)? else { return Err(only_v4()) };
    let prefix = prefix.parse::<u32>().ok().filter(|prefix| (1..=32).contains(prefix));
    let prefix = prefix.ok_or_else(|| format!("{part:?} has no prefix length from 1 to 32"))?;
    let mask = u32::MAX << (32 - prefix);
    let (mut low, mut high) = (network.to_bits() & mask, network.to_bits() | !mask);
    // The first address of a network names it, the last is its broadcast; RFC 3021 has none for
    // two.
    if prefix <= 30 {
        (low, high) = (low + 1, high - 1);
    }
    Ok((Ipv4Addr::from_bits(low).into(), Ipv4Addr::from_bits(high).into()))
}

impl Host {
    /// `pairs` counts pairs of a source and a destination.
    fn holds(self, connections: usize, pairs: usize) -> Result<(), String> {
        let needed = connections.saturating_add(OTHER_DESCRIPTORS);
        if needed > self.descriptors {
            let raise =
                if needed > self.descriptors_max { format!("sysctl -w fs.nr_open={needed}; ") } else { "".into() };
            return Err(format!(
                "{connections} connections need {needed} open files, and this process may have {}: run \
                 `{raise}ulimit -n {needed}` as root, and the test from that shell",
                self.descriptors
            ));
        }
        if connections <= self.ports.saturating_mul(pairs) {
            return Ok(());
        }
        let has = format!(
            "{connections} connections need as many local ports, and there are {} for each of the {pairs} pairs of \
             source and destination",
            self.ports
        );
        if connections <= WIDEST_LEN.saturating_mul(pairs) {
            return Err(format!("{has}: run `sysctl -w net.ipv4.ip_local_port_range=\"{WIDEST}\"` as root"));
        }
        let more = connections.div_ceil(self.ports.max(1));
        Err(format!("{has}: add source addresses, for a server on this host `--source {}`", loopback(more)))
    }
}

/// So many addresses of the loopback network.
fn loopback(count: usize) -> String {
    let first = u32::from(Ipv4Addr::LOCALHOST);
    let last = Ipv4Addr::from(first.saturating_add(u32::try_from(count.clamp(2, SOURCES_MAX) - 1).unwrap_or(0)));
    format!("127.0.0.1-{last}")
}

fn is_local(source: IpAddr) -> Result<(), String> {
    let bound = TcpListener::bind(SocketAddr::new(source, 0));
    bound.map(drop).map_err(|e| format!("{source} cannot be a source address: is it one of this host? ({e})"))
}

/// The kernel's own default where it does not say.
fn ports_of_host() -> usize {
    let text = read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range_len(&text).unwrap_or(60_999 - 32_768 + 1)
}

fn range_len(text: &str) -> Option<usize> {
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    let (low, high) = (words.next()?.ok()?, words.next()?.ok()?);
    (low <= high).then(|| usize::from(high - low) + 1)
}

fn number_in(path: &str) -> Option<usize> {
    read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        parse_sources(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sources_are_lists_ranges_networks() {
        assert_eq!(parsed("127.0.0.1"), ["127.0.0.1"]);
        assert_eq!(parsed("127.0.0.9, 127.0.0.2,127.0.0.9"), ["127.0.0.9", "127.0.0.2"]);
        assert_eq!(parsed("127.0.0.254-127.0.1.1"), ["127.0.0.254", "127.0.0.255", "127.0.1.0", "127.0.1.1"]);
        assert_eq!(parsed("10.0.0.5/30"), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(parsed("10.0.0.4/31"), ["10.0.0.4", "10.0.0.5"]);
        assert_eq!(parsed("10.0.0.4/32,::1"), ["10.0.0.4", "::1"]);
        assert_eq!(parsed("10.0.0.0/20").len(), 4094);
        assert_eq!(parsed("127.0.0.1-127.0.16.0").len(), 4096);
    }

    #[test]
    fn invalid_sources_are_explained() {
        for (text, says) in [
            ("", "is not a source address"),
            ("a,127.0.0.1", "\"a\" is not a source address"),
            ("127.0.0.1,", "is not a source address"),
            ("127.0.0.2-9", "is not a source address"),
            ("127.0.0.9-127.0.0.2", "ends before it begins"),
            ("127.0.0.1-127.0.16.1", "more than 4096"),
            ("10.0.0.0/19", "more than 4096"),
            ("0.0.0.1-255.255.255.255", "more than 4096"),
            ("10.0.0.0/1", "more than 4096"),
            ("10.0.0.0/0", "prefix length"),
            ("10.0.0.0/33", "prefix length"),
            ("10.0.0.0/", "prefix length"),
            ("::1-::5", "one by one"),
            ("::1/64", "one by one"),
            ("127.0.0.1-::5", "one by one"),
            ("0.0.0.0", "cannot be a source"),
            ("224.0.0.1", "cannot be a source"),
        ] {
            let error = parse_sources(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn each_limit_names_what_raises_it() {
        let host = Host { descriptors: 1_000_000, descriptors_max: 1 << 20, ports: 28_232 };
        assert_eq!(host.holds(28_232, 1), Ok(()));
        assert_eq!(host.holds(4 * 28_232, 4), Ok(()));
        let says = |host: Host, connections, pairs, what: &str| {
            let error = host.holds(connections, pairs).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        says(host, 28_233, 1, "`sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"`");
        says(host, 64_513, 1, "`--source 127.0.0.1-127.0.0.3`");
        says(host, 400_000, 1, "`--source 127.0.0.1-127.0.0.15`");
        let few = Host { descriptors: 1024, ..host };
        assert_eq!(few.holds(960, 1), Ok(()));
        says(few, 961, 1, "may have 1024: run `ulimit -n 1025`");
        says(few, 2_000_000, 1, "`sysctl -w fs.nr_open=2000064; ulimit -n 2000064`");
    }

    #[test]
    fn what_is_named_suffices() {
        let host = Host { descriptors: usize::MAX, descriptors_max: usize::MAX, ports: 28_232 };
        for connections in [64_513, 100_000, 1_000_000] {
            let error = host.holds(connections, 1).unwrap_err();
            let (_, named) = error.split_once("--source ").unwrap();
            let sources = parse_sources(named.trim_end_matches('`')).unwrap();
            assert_eq!(host.holds(connections, sources.len()), Ok(()));
        }
    }

    #[test]
    fn this_host_is_read() {
        assert_eq!(range_len("32768\t60999\n"), Some(28_232));
        assert_eq!(range_len("60999 32768"), None);
        assert_eq!(range_len(""), None);
        assert_eq!(check(1, 1, &[]), Ok(()));
        assert_eq!(check(1, 1, &parse_sources("127.0.0.1-127.0.0.4").unwrap()), Ok(()));
        assert!(check(1, 1, &parse_sources("192.0.2.7").unwrap()).unwrap_err().contains("of this host"));
        assert!(check(1 << 40, 1, &[]).unwrap_err().contains("ulimit -n 1099511627840"));
    }

    #[test]
    fn families_do_not_mix() {
        let (four, six) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        let sources = parse_sources("127.0.0.1").unwrap();
        assert_eq!(check_families(&sources, [&four]), Ok(()));
        assert_eq!(check_families(&[], [&four, &six]), Ok(()));
        assert!(check_families(&sources, [&four, &six]).unwrap_err().contains("IPv6"));
    }
}
