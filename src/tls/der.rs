//! The parts of DER and X.509 (RFC 5280) used here: reading a certificate's subject and expiry, and
//! writing a self-signed certificate. Verification is left to rustls; nothing is decided on what is
//! read here.

use crate::text::hex;

/// What is read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// In the form of RFC 4514, in printable ASCII; other bytes are escaped.
    pub subject: String,
    /// Expiry, in seconds since the Unix epoch.
    pub not_after: u64,
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// Attribute types with a short name (RFC 4514 section 3, and emailAddress, which is still common).
const ATTRIBUTES: [(&[u8], &str); 10] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// Reads a certificate; `None` if it is malformed.
pub fn read(certificate: &[u8]) -> Option<Parsed> {
    let mut certificate = Reader(certificate);
    let mut fields = Reader(Reader(certificate.take(SEQUENCE)?).take(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.take(VERSION)?;
    }
    fields.take(INTEGER)?;
    // Algorithm and issuer.
    fields.take(SEQUENCE)?;
    fields.take(SEQUENCE)?;
    let mut validity = Reader(fields.take(SEQUENCE)?);
    // notBefore.
    validity.next()?;
    let (tag, not_after) = validity.next()?;
    let subject = subject(fields.take(SEQUENCE)?)?;
    Some(Parsed { subject, not_after: time(tag, not_after)? })
}

/// A sequence of elements.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element: its tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == expected).map(|(_, content)| content)
    }
}

/// In reverse order (RFC 4514 section 2.1).
fn subject(name: &[u8]) -> Option<String> {
    let (mut sets, mut parts) = (Reader(name), Vec::new());
    while !sets.0.is_empty() {
        let (mut set, mut values) = (Reader(sets.take(SET)?), Vec::new());
        while !set.0.is_empty() {
            let mut pair = Reader(set.take(SEQUENCE)?);
            let (oid, (tag, value)) = (pair.take(OID)?, pair.next()?);
            values.push(format!("{}={}", attribute(oid), text(tag, value)));
        }
        parts.push(values.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(oid: &[u8]) -> String {
    match ATTRIBUTES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => dotted(oid),
    }
}

fn dotted(oid: &[u8]) -> String {
    let (mut arcs, mut arc) = (Vec::new(), 0u64);
    for byte in oid {
        arc = arc << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        }
    }
    // The first number encodes two arcs.
    let first = arcs.first().copied().unwrap_or(0);
    let root = (first / 40).min(2);
    let rest = arcs.iter().skip(1).map(|arc| format!(".{arc}")).collect::<String>();
    format!("{root}.{}{rest}", first - root * 40)
}

/// A value of a string type; any other type as `#` and hex (RFC 4514 section 2.4).
fn text(tag: u8, value: &[u8]) -> String {
    const STRINGS: [u8; 5] = [UTF8_STRING, 0x12, 0x13, 0x14, 0x16];
    if !STRINGS.contains(&tag) {
        return format!("#{}", hex(value));
    }
    let mut out = String::with_capacity(value.len());
    for (i, byte) in value.iter().enumerate() {
        let (first, last) = (i == 0, i + 1 == value.len());
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b' ' if first || last => out.push_str("\\ "),
            b'#' if first => out.push_str("\\#"),
            // A subject must not be able to forge header fields or log lines.
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5) in seconds since the Unix epoch.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |at: usize, len: usize| -> Option<i64> {
        let digits = digits.get(at..at + len)?;
        digits.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|offset| number(at + offset, 2));
    let days = days_from_civil(year, month.filter(|month| (1..=12).contains(month))?, day?);
    u64::try_from(((days * 24 + hour?) * 60 + minute?) * 60 + second?).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is
/// the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The content of a self-signed certificate.
pub struct CertParams<'a> {
    pub common_name: &'a str,
    pub dns: &'a str,
    /// Four or sixteen bytes.
    pub address: &'a [u8],
    pub serial: [u8; 16],
    /// `YYMMDDHHMMSSZ`.
    pub validity: [&'a str; 2],
    /// The uncompressed point of a P-256 key.
    pub public: &'a [u8],
}

const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 17];

/// A self-signed certificate. `sign` signs with ECDSA and SHA-256, in DER.
pub fn self_signed<E>(params: &CertParams<'_>, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
    let algorithm = tlv(SEQUENCE, &[&tlv(OID, &[&ECDSA_WITH_SHA256])]);
    let common_name = [tlv(OID, &[&[0x55, 4, 3]]), tlv(UTF8_STRING, &[params.common_name.as_bytes()])].concat();
    let name = tlv(SEQUENCE, &[&tlv(SET, &[&tlv(SEQUENCE, &[&common_name])])]);
    let mut serial = params.serial;
    // Positive, without a redundant leading zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let key = [tlv(OID, &[&EC_PUBLIC_KEY]), tlv(OID, &[&P256])].concat();
    // dNSName and iPAddress of GeneralName (RFC 5280 section 4.2.1.6).
    let names = [tlv(0x82, &[params.dns.as_bytes()]), tlv(0x87, &[params.address])].concat();
    let alternative = tlv(OCTET_STRING, &[&tlv(SEQUENCE, &[&names])]);
    let extension = tlv(SEQUENCE, &[&tlv(OID, &[&SUBJECT_ALT_NAME]), &alternative]);
    let body = tlv(
        SEQUENCE,
        &[
            &tlv(VERSION, &[&tlv(INTEGER, &[&[2]])]),
            &tlv(INTEGER, &[&serial]),
            &algorithm,
            &name,
            &tlv(
                SEQUENCE,
                &params.validity.map(|time| tlv(UTC_TIME, &[time.as_bytes()])).each_ref().map(Vec::as_slice),
            ),
            &name,
            &tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&key]), &tlv(BIT_STRING, &[&[0], params.public])]),
            &tlv(EXTENSIONS, &[&tlv(SEQUENCE, &[&extension])]),
        ],
    );
    let signature = sign(&body)?;
    Ok(tlv(SEQUENCE, &[&body, &algorithm, &tlv(BIT_STRING, &[&[0], &signature])]))
}

/// An element of up to 64 KiB.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = content.len() as u16;
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(len as u8),
        0x80..=0xff => out.extend([0x81, len as u8]),
        _ => out.extend([&[0x82], len.to_be_bytes().as_slice()].concat()),
    }
    out.extend(content);
    out
}
