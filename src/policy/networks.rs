//! Networks of both families, with what belongs to each: which of them an address is in.
//!
//! They are sorted by their first address. The last one that begins at or before an address
//! contains it, or one of those around that one does: so a look-up is one binary search, however
//! many lengths of prefixes there are, and no choice of addresses makes it longer. That matters for
//! lists that name attackers.

use ipnet::{IpNet, Ipv4Net};
use std::collections::BTreeMap;
use std::iter;
use std::net::IpAddr;

/// Networks, each once. An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is the IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks<T> {
    v4: Family<u32, T>,
    v6: Family<u128, T>,
}

impl<T> Default for Networks<T> {
    fn default() -> Networks<T> {
        Networks { v4: Family::default(), v6: Family::default() }
    }
}

/// A network of mapped addresses is one of IPv4 (RFC 4291 section 2.5.5.2). Without host bits.
pub fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let network = network.trunc();
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    v4.and_then(|(addr, length)| Ipv4Net::new(addr, length).ok()).map_or(network, IpNet::V4)
}

impl<T> Networks<T> {
    pub fn new(networks: BTreeMap<IpNet, T>) -> Networks<T> {
        let mut all = Networks::default();
        // In this order a network comes before those within it.
        networks.into_iter().for_each(|(network, value)| all.push(network, value));
        all
    }

    fn push(&mut self, network: IpNet, value: T) {
        match network {
            IpNet::V4(v4) => self.v4.push(v4.network().into(), v4.broadcast().into(), value),
            IpNet::V6(v6) => self.v6.push(v6.network().into(), v6.broadcast().into(), value),
        }
    }

    /// What belongs to each network that `address` is in, the smallest network first.
    pub fn of(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        let (v4, v6) = match address.to_canonical() {
            IpAddr::V4(v4) => (Some(self.v4.of(v4.into())), None),
            IpAddr::V6(v6) => (None, Some(self.v6.of(v6.into()))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(v4.into()).is_some(),
            IpAddr::V6(v6) => self.v6.find(v6.into()).is_some(),
        }
    }

    pub fn len(&self) -> usize {
        self.v4.firsts.len() + self.v6.firsts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<IpNet> for Networks<()> {
    /// A network within another adds nothing, and is left out.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Networks<()> {
        let mut sorted: Vec<_> = networks.into_iter().map(canonical).collect();
        sorted.sort_unstable();
        let mut all = Networks::default();
        for network in sorted {
            if !all.contains(network.addr()) {
                all.push(network, ());
            }
        }
        all
    }
}

/// Those of one family. `A` is an address as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Family<A, T> {
    /// The first address of each, ascending; of those with the same, the largest network first.
    firsts: Vec<A>,
    /// The last address of each.
    lasts: Vec<A>,
    /// The smallest other network around each, or [`NONE`].
    around: Vec<u32>,
    values: Vec<T>,
}

/// No position. A family has fewer networks than that (they take 12 bytes each at least).
const NONE: u32 = u32::MAX;

impl<A, T> Default for Family<A, T> {
    fn default() -> Family<A, T> {
        Family { firsts: Vec::new(), lasts: Vec::new(), around: Vec::new(), values: Vec::new() }
    }
}

impl<A: Copy + Ord, T> Family<A, T> {
    /// They come in ascending order.
    fn push(&mut self, first: A, last: A, value: T) {
        let around = self.find(first).and_then(|at| u32::try_from(at).ok()).unwrap_or(NONE);
        self.firsts.push(first);
        self.lasts.push(last);
        self.around.push(around);
        self.values.push(value);
    }

    /// The smallest network that `address` is in. Goes through as many as are around each other at
    /// most: the length of an address in bits.
    fn find(&self, address: A) -> Option<usize> {
        let mut at = self.firsts.partition_point(|first| *first <= address).checked_sub(1)?;
        while *self.lasts.get(at)? < address {
            at = self.around_of(at)?;
        }
        Some(at)
    }

    fn around_of(&self, at: usize) -> Option<usize> {
        self.around.get(at).filter(|around| **around != NONE).map(|around| *around as usize)
    }

    fn of(&self, address: A) -> impl Iterator<Item = &T> {
        iter::successors(self.find(address), |at| self.around_of(*at)).filter_map(|at| self.values.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn set(networks: &[&str]) -> Networks<()> {
        networks.iter().map(|text| net(text)).collect()
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (networks, inside, outside) in [
            (&[][..], &[][..], &["0.0.0.0", "::", "255.255.255.255", "::ffff:1.2.3.4"][..]),
            (&["0.0.0.0/0"], &["0.0.0.0", "255.255.255.255", "::ffff:8.8.8.8"], &["::", "::1", "::1.2.3.4"]),
            (&["::/0"], &["::", "::1", "2001:db8::1", "::1.2.3.4"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            (&["10.0.0.0/8"], &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["9.255.255.255", "11.0.0.0"]),
            (&["10.1.2.3/8"], &["10.0.0.0"], &["11.0.0.0"]),
            (&["192.0.2.7/32"], &["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"], &["192.0.2.6", "192.0.2.8"]),
            (&["::ffff:192.0.2.0/120"], &["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.9"], &["192.0.3.0"]),
            (&["::ffff:0.0.0.0/96"], &["1.2.3.4", "::ffff:1.2.3.4"], &["::", "::1.2.3.4"]),
            (&["::ffff:0.0.0.0/95"], &["::fffe:1.2.3.4"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            (&["fe80::/10"], &["fe80::1", "febf:ffff::"], &["fec0::", "fe7f:ffff::"]),
            (&["2001:db8::/32"], &["2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"], &["2001:db9::", "2001:db7:ffff::"]),
            (&["255.255.255.255/32"], &["255.255.255.255"], &["255.255.255.254"]),
            (&["0.0.0.0/32"], &["0.0.0.0"], &["0.0.0.1", "::"]),
            // Behind the last small one within a large one.
            (&["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"], &["10.1.2.0", "10.2.0.0", "10.0.0.1"], &["11.0.0.0"]),
            (&["10.1.0.0/16", "10.1.0.0/24", "10.1.0.0/32"], &["10.1.0.0", "10.1.0.1", "10.1.9.9"], &["10.2.0.0"]),
            (&["10.1.0.0/24", "10.3.0.0/24"], &["10.1.0.9", "10.3.0.9"], &["10.2.0.9", "10.1.1.0", "10.3.1.0"]),
        ] {
            let networks = set(networks);
            for (addresses, expected) in [(inside, true), (outside, false)] {
                for address in addresses {
                    assert_eq!(networks.contains(address.parse().unwrap()), expected, "{address} in {networks:?}");
                }
            }
        }
    }

    #[test]
    fn networks_within_others_add_nothing_to_a_set() {
        let all = set(&["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "::ffff:10.0.0.0/112", "::/0", "fe80::/10"]);
        assert_eq!(all, set(&["10.0.0.0/8", "::/0"]));
        assert_eq!((all.len(), all.is_empty()), (2, false));
    }

    /// Small numbers: networks meet often.
    fn any_network() -> impl Strategy<Value = IpNet> {
        let v4 = (0..4u8, 0..4u8, 14..=32u8).prop_map(|(a, b, length)| ([10, a, 0, b], length));
        let v4 = v4.prop_map(|(bytes, length)| IpNet::new(IpAddr::from(bytes), length).unwrap());
        let v6 = (0..4u16, 0..4u16, 110..=128u8).prop_map(|(a, b, length)| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, a, b);
            IpNet::new(IpAddr::V6(address), length).unwrap()
        });
        prop_oneof![v4, v6].prop_map(|network| network.trunc())
    }

    proptest! {
        #[test]
        fn finds_what_trying_each_finds(
            networks in prop::collection::vec(any_network(), 0..40),
            probe in any_network(),
        ) {
            let all: BTreeMap<IpNet, IpNet> = networks.iter().map(|network| (*network, *network)).collect();
            let mut each: Vec<_> = all.keys().copied().filter(|network| network.contains(&probe.addr())).collect();
            each.sort_by_key(|network| std::cmp::Reverse(network.prefix_len()));
            let found: Vec<_> = Networks::new(all).of(probe.addr()).copied().collect();
            prop_assert_eq!(&found, &each);
            let set: Networks<()> = networks.into_iter().collect();
            prop_assert_eq!(set.contains(probe.addr()), !each.is_empty());
            prop_assert!(set.of(probe.addr()).count() <= 1);
        }
    }
}
