use super::*;

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// A header of version 2 from its two bytes behind the signature and what follows the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &len, rest].concat()
}

const INET: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

fn inet(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[INET, tlvs].concat())
}

fn inet6() -> Vec<u8> {
    let ends: [Ipv6Addr; 2] = ["2001:db8::7".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let octets = ends.iter().flat_map(|end| end.octets()).chain([0xdc, 0x04, 0x01, 0xbb]);
    v2(0x21, 0x21, &octets.collect::<Vec<_>>())
}

/// A header with its checksum, which stands behind `before`.
fn summed(before: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut header = inet(&[before, &[3, 0, 4, 0, 0, 0, 0], behind].concat());
    let at = 16 + INET.len() + before.len() + 3;
    let sum = checksum(&header, at).to_be_bytes();
    header[at..at + 4].copy_from_slice(&sum);
    header
}

/// The verdict on `bytes`, which is the same however they are cut: no shorter prefix has another.
fn judge(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let verdict = parse(bytes);
    for cut in 0..bytes.len() {
        match (parse(&bytes[..cut]), verdict) {
            (Ok(None), _) => {}
            (Ok(Some(header)), Ok(Some(whole))) => assert_eq!((header, header.len <= cut), (whole, true)),
            (earlier, whole) => assert_eq!(earlier, whole, "{cut} bytes of {:?}", bytes.escape_ascii().to_string()),
        }
    }
    verdict
}

#[test]
fn sound_headers() {
    let v4 = addresses("192.0.2.7:56324", "198.51.100.1:443");
    let v6 = addresses("[2001:db8::7]:56324", "[2001:db8::1]:443");
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let rows: Vec<(Vec<u8>, Option<Addresses>)> = vec![
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), v4),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), v6),
        (b"PROXY TCP6 2001:0DB8::0007 2001:db8:0:0:0:0:0:1 56324 443\r\n".to_vec(), v6),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 443\r\n".to_vec(), v4),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n".to_vec(), addresses("0.0.0.0:0", "255.255.255.255:65535")),
        (
            format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n").into_bytes(),
            addresses(&format!("[{longest}]:65535"), &format!("[{longest}]:65535")),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN 192.0.2.7 what ever\r\n".to_vec(), None),
        (format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n").into_bytes(), None),
        (inet(&[]), v4),
        (inet6(), v6),
        (inet(&[0x04, 0, 0]), v4),
        (inet(&[0x02, 0, 1, b'a', 0xe0, 0, 2, 0, 0]), v4),
        (summed(&[], &[]), v4),
        (summed(&[0x01, 0, 2, b'h', b'2'], &[0x04, 0, 1, 0]), v4),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, INET), None),
        (v2(0x20, 0xff, &[1, 2, 3]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, &[9; 40]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
        (v2(0x21, 0x31, &[&[0; 216][..], &[0x04, 0, 0]].concat()), None),
        (v2(0x20, 0x00, &[0; 4096]), None),
        (inet(&[&[0x04, 0x0f, 0xf1][..], &[0; 4096 - 15]].concat()), v4),
    ];
    for (bytes, addresses) in rows {
        let shown = bytes.escape_ascii().to_string();
        let whole = Header { len: bytes.len(), addresses };
        assert_eq!(judge(&bytes), Ok(Some(whole)), "{shown}");
        for behind in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"PROXY UNKNOWN\r\n", &[0; 9000]] {
            assert_eq!(judge(&[&bytes, behind].concat()), Ok(Some(whole)), "{shown}: what follows is not touched");
        }
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} bytes of {shown}");
        }
    }
}

#[test]
fn first_bytes_of_something_else() {
    let rows: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
        b" PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
        b"\nPROXY UNKNOWN\r\n",
        b"\r\nPROXY UNKNOWN\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\n\r\n\0\r\nQUIT\r\n",
        b"\r\n\r\n\x01\r\nQUIT\n\x21\x11\0\x0c",
        b"\0",
        b"\xff\xff\xff\xff",
    ];
    for bytes in rows {
        assert_eq!(judge(bytes), Err(Error::Absent), "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn malformed_lines() {
    let rows = [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXYUNKNOWN\r\n",
        "PROXY\tUNKNOWN\r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY unknown\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\r\r\n.\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1\r\n",
        "PROXY TCP4 192.0.2.7  198.51.100.1 56324 443\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4\t192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7. 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 0xc0.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 3221225991 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 localhost 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n",
        "PROXY TCP4 ::ffff:192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP6 2001:db8::7 198.51.100.1 56324 443\r\n",
        "PROXY TCP6 [2001:db8::7] [2001:db8::1] 56324 443\r\n",
        "PROXY TCP6 fe80::7%eth0 2001:db8::1 56324 443\r\n",
        "PROXY TCP6 2001:db8::7::1 2001:db8::1 56324 443\r\n",
        "PROXY TCP6 2001:db8:00007::1 2001:db8::1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 056324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 00\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +5632 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 https\r\n",
        "PROXY TCP4 192.0.2.7\0 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 5632\u{664} 443\r\n",
    ];
    for line in rows {
        assert_eq!(judge(line.as_bytes()), Err(Error::Malformed), "{line:?}");
    }
    assert_eq!(judge(b"PROXY UNKNOWN \xff\r\n"), Err(Error::Malformed), "not US-ASCII");
}

#[test]
fn malformed_binary_headers() {
    let mut changed = summed(&[], &[]);
    changed[16] ^= 1;
    let rows: Vec<Vec<u8>> = vec![
        v2(0x11, 0x11, INET),
        v2(0x31, 0x11, INET),
        v2(0x01, 0x11, INET),
        v2(0x22, 0x11, INET),
        v2(0x2f, 0x11, INET),
        v2(0x21, 0x12, INET),
        v2(0x21, 0x22, &[0; 36]),
        v2(0x21, 0x32, &[0; 216]),
        v2(0x21, 0x10, INET),
        v2(0x21, 0x01, INET),
        v2(0x21, 0x41, INET),
        v2(0x21, 0xff, INET),
        v2(0x21, 0x11, &[]),
        v2(0x21, 0x11, &INET[..11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x21, INET),
        v2(0x21, 0x31, &[0; 215]),
        inet(&[0x04]),
        inet(&[0x04, 0]),
        inet(&[0x04, 0, 1]),
        inet(&[0x04, 0, 0, 0x04]),
        inet(&[0x04, 0xff, 0xff, 0]),
        inet(&[3, 0, 4, 0, 0, 0, 0]),
        inet(&[3, 0, 0]),
        inet(&[3, 0, 3, 0, 0, 0]),
        inet(&[3, 0, 5, 0, 0, 0, 0, 0]),
        changed,
        [summed(&[], &[3, 0, 4, 1, 2, 3, 4])].concat(),
    ];
    for bytes in rows {
        assert_eq!(judge(&bytes), Err(Error::Malformed), "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn headers_that_are_too_long() {
    let fill = |n: usize| "x".repeat(n);
    let line = |n: usize| format!("PROXY UNKNOWN {}\r\n", fill(n - 16)).into_bytes();
    assert_eq!(judge(&line(107)), Ok(Some(Header { len: 107, addresses: None })));
    for bytes in [line(108), line(4000), format!("PROXY {}", fill(101)).into_bytes(), v2(0x21, 0x11, &[0; 4097])] {
        assert_eq!(judge(&bytes), Err(Error::TooLong));
    }
    let announced = [&V2_SIGNATURE[..], &[0x20, 0, 0xff, 0xff]].concat();
    assert_eq!(judge(&announced), Err(Error::TooLong), "as soon as the length is known");
    assert_eq!(parse(&line(107)[..106]), Ok(None));
}

/// The examples of RFC 3720, appendix B.4.
#[test]
fn checksums_are_crc32c() {
    let of = |bytes: &[u8]| checksum(bytes, usize::MAX - 4);
    assert_eq!(of(&[0; 32]), 0x8a91_36aa);
    assert_eq!(of(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(of(&(0..32).collect::<Vec<_>>()), 0x46dd_794e);
}

#[test]
fn what_is_written_is_parsed_again() {
    let rows = [
        (addresses("192.0.2.7:56324", "198.51.100.1:443"), "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"),
        (addresses("[2001:db8::7]:0", "[::1]:443"), "PROXY TCP6 2001:db8::7 ::1 0 443\r\n"),
        (addresses("[::ffff:192.0.2.7]:1", "198.51.100.1:2"), "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n"),
        (addresses("192.0.2.7:1", "[2001:db8::1]:2"), "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"),
        (addresses("[2001:db8::1]:1", "192.0.2.7:2"), "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.7 1 2\r\n"),
        (None, "PROXY UNKNOWN\r\n"),
    ];
    for (ends, line) in rows {
        assert_eq!(write(Version::V1, ends.as_ref()).escape_ascii().to_string(), line.escape_default().to_string());
        let same = ends.map(|ends| Addresses {
            source: canonical(ends.source.ip(), ends.source.port()),
            destination: canonical(ends.destination.ip(), ends.destination.port()),
        });
        for version in Version::ALL {
            let bytes = write(version, ends.as_ref());
            assert_eq!(judge(&bytes), Ok(Some(Header { len: bytes.len(), addresses: same })), "{line}");
        }
    }
    assert_eq!(write(Version::V2, None), v2(0x20, 0, &[]));
    assert_eq!(write(Version::V2, addresses("192.0.2.7:56324", "198.51.100.1:443").as_ref()), inet(&[]));
    assert_eq!(write(Version::V2, addresses("[2001:db8::7]:56324", "[2001:db8::1]:443").as_ref()), inet6());
}

/// Changed bytes and any others: a verdict, the same for every cut, and no panic.
#[test]
fn damaged_headers_have_one_verdict() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET".to_vec();
    let whole = [line, inet(&[0x04, 0, 1, 0]), inet6(), summed(&[0x04, 0, 0], &[0x05, 0, 1, 9]), v2(0x20, 0, &[])];
    for round in 0..20_000 {
        let mut bytes = whole[round % whole.len()].clone();
        for _ in 0..=random() % 3 {
            let at = random() as usize % bytes.len();
            bytes[at] = random() as u8;
        }
        if let Ok(Some(header)) = judge(&bytes) {
            assert!(header.len <= bytes.len() && header.len <= HEADER_MAX);
        }
    }
}
