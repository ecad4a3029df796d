//! The PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`): what a proxy says of a
//! connection before its first byte. Parses and writes headers as bytes; whose word is believed is
//! the caller's business.
//!
//! A header is judged from its first byte on, and the verdict is the same for every segmentation: a
//! prefix is rejected only if everything that begins with it is.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the longest header that is accepted.
pub const HEADER_MAX: usize = V2_FIXED + V2_REST_MAX;
/// "a 108-byte buffer is always enough to store all the line and a trailing zero" (section 2.1).
const V1_MAX: usize = 107;
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// Addresses and TLVs. Version 2 allows 65,535; senders keep to what fits into a first segment,
/// but for certificates.
const V2_REST_MAX: usize = 4096;

const V1_SIGNATURE: &[u8] = b"PROXY";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// PP2_TYPE_CRC32C.
const TLV_CRC32C: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    pub const ALL: [Version; 2] = [Version::V1, Version::V2];

    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
        }
    }
}

/// The two ends of the connection that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client. Its port is 0 where it is not known.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; the client's follow.
    pub len: usize,
    /// `None` for LOCAL, UNKNOWN and families without an IP address: the peer is the client.
    pub addresses: Option<Addresses>,
}

/// Why these bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// They begin as neither version does.
    Absent,
    Malformed,
    TooLong,
}

/// Parses what a connection begins with; `None` as long as the header is incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, known)| byte == known);
    if begins(V1_SIGNATURE) && !bytes.is_empty() {
        return parse_v1(bytes);
    }
    if begins(V2_SIGNATURE) { parse_v2(bytes) } else { Err(Error::Absent) }
}

/// One line of US-ASCII, CRLF included.
fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let start = bytes.get(..V1_MAX).unwrap_or(bytes);
    let Some(end) = start.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < V1_MAX { Ok(None) } else { Err(Error::TooLong) };
    };
    let line = start.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Error::Malformed)?;
    let line = str::from_utf8(line).map_err(|_| Error::Malformed)?;
    let rest = line.strip_prefix("PROXY ").ok_or(Error::Malformed)?;
    let addresses = v1_addresses(rest).ok_or(Error::Malformed)?;
    Ok(Some(Header { len: end + 1, addresses }))
}

/// What follows `PROXY `; the outer `None` if it is malformed.
fn v1_addresses(text: &str) -> Option<Option<Addresses>> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // "the receiver must ignore anything presented before the CRLF is found" (section 2.1).
        return Some(None);
    }
    let address = |word: &str| match family {
        "TCP4" => word.parse().ok().map(IpAddr::V4),
        "TCP6" => word.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let addresses = Addresses { source: canonical(source, from), destination: canonical(destination, to) };
    words.next().is_none().then_some(Some(addresses))
}

/// Decimal, without leading zeros.
fn port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (word == "0" || !word.starts_with('0')) { word.parse().ok() } else { None }
}

fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Nothing is known of the client, or it is no client of a TCP socket.
    Other {
        address_len: usize,
    },
    Inet,
    Inet6,
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Error::Malformed),
    };
    let family = match (local, bytes.get(13)) {
        (_, None) => return Ok(None),
        // "must discard the protocol block including the family which is ignored" (section 2.2).
        (true, Some(_)) | (false, Some(0x00)) => Family::Other { address_len: 0 },
        (false, Some(0x11)) => Family::Inet,
        (false, Some(0x21)) => Family::Inet6,
        (false, Some(0x31)) => Family::Other { address_len: 216 },
        // Datagrams did not come over this connection.
        (false, Some(_)) => return Err(Error::Malformed),
    };
    let Some(&[high, low]) = bytes.get(14..V2_FIXED) else { return Ok(None) };
    let rest_len = usize::from(u16::from_be_bytes([high, low]));
    if rest_len > V2_REST_MAX {
        return Err(Error::TooLong);
    }
    let len = V2_FIXED + rest_len;
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let rest = header.get(V2_FIXED..).unwrap_or_default();
    let (addresses, tlvs) = v2_addresses(family, rest).ok_or(Error::Malformed)?;
    // What LOCAL and UNSPEC are followed by has no form that could be relied on.
    if family != (Family::Other { address_len: 0 }) && !are_sound(tlvs, header) {
        return Err(Error::Malformed);
    }
    Ok(Some(Header { len, addresses }))
}

/// The addresses, and the TLVs behind them.
fn v2_addresses(family: Family, rest: &[u8]) -> Option<(Option<Addresses>, &[u8])> {
    match family {
        Family::Other { address_len } => Some((None, rest.get(address_len..)?)),
        Family::Inet => {
            let (source, rest) = rest.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            ports(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), rest)
        }
        Family::Inet6 => {
            let (source, rest) = rest.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest)
        }
    }
}

fn ports(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Option<(Option<Addresses>, &[u8])> {
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, rest) = rest.split_first_chunk::<2>()?;
    let source = canonical(source, u16::from_be_bytes(*from));
    let destination = canonical(destination, u16::from_be_bytes(*to));
    Some((Some(Addresses { source, destination }), rest))
}

/// Whether the TLVs fill what they are in, and a checksum among them is that of the header. Their
/// other types are skipped.
fn are_sound(mut tlvs: &[u8], header: &[u8]) -> bool {
    while let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let Some((value, next)) = rest.split_at_checked(len) else { return false };
        if kind == TLV_CRC32C {
            let at = header.len() - rest.len();
            let same = <[u8; 4]>::try_from(value).is_ok_and(|sum| u32::from_be_bytes(sum) == checksum(header, at));
            if !same {
                return false;
            }
        }
        tlvs = next;
    }
    tlvs.is_empty()
}

/// CRC32c of a header whose four bytes of checksum at `at` count as zero (section 2.2.3).
fn checksum(header: &[u8], at: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bytes = header.iter().enumerate().map(|(index, byte)| if (at..at + 4).contains(&index) { 0 } else { *byte });
    // Bit by bit: it is seldom there, and a table would take a kilobyte.
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg()))
    })
}

/// The header for a connection of ours. Without addresses it has no client: LOCAL, or UNKNOWN.
pub fn write(version: Version, addresses: Option<&Addresses>) -> Vec<u8> {
    let ends = addresses.map(|addresses| {
        let (source, destination) = (addresses.source, addresses.destination);
        let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
        // There is no header for an end of each family.
        let (from, to) = if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) };
        (from, to, source.port(), destination.port())
    });
    match (version, ends) {
        (Version::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (Version::V1, Some((from, to, source, destination))) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
        }
        (Version::V2, ends) => write_v2(ends),
    }
}

fn write_v2(ends: Option<(IpAddr, IpAddr, u16, u16)>) -> Vec<u8> {
    let mut out = V2_SIGNATURE.to_vec();
    match ends {
        None => return [&out[..], &[0x20, 0, 0, 0]].concat(),
        Some((IpAddr::V4(from), IpAddr::V4(to), ..)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend(from.octets().into_iter().chain(to.octets()));
        }
        Some((from, to, ..)) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend([from, to].into_iter().flat_map(octets));
        }
    }
    let ports = ends.map(|(.., source, destination)| [source, destination]).unwrap_or_default();
    out.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    out
}

fn mapped(address: IpAddr) -> IpAddr {
    IpAddr::from(octets(address))
}

/// Those of IPv6, in which IPv4 is mapped.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
