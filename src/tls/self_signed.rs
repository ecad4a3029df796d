//! A self-signed certificate for the demo.

use super::der::{self, CertParams};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

const VALID: Duration = Duration::from_secs(90 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const LINE: usize = 64;

/// A self-signed certificate for `localhost` and an address, and its key, both in PEM. Valid for 90
/// days.
pub fn self_signed(addr: IpAddr, now: SystemTime) -> Result<(String, String), Unspecified> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let mut serial = [0; 16];
    rand::fill(&mut serial)?;
    // Valid for a client whose clock is behind, too.
    let validity = [utc_time(now - HOUR), utc_time(now + VALID)];
    let address = match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let params = CertParams {
        common_name: "framegate demo",
        dns: "localhost",
        address: &address,
        serial,
        validity: validity.each_ref().map(String::as_str),
        public: key.public_key().as_ref(),
    };
    let random = SystemRandom::new();
    let certificate =
        der::self_signed(&params, |bytes| key.sign(&random, bytes).map(|signature| signature.as_ref().to_vec()))?;
    let private = key.to_pkcs8v1()?;
    Ok((pem("CERTIFICATE", &certificate), pem("PRIVATE KEY", private.as_ref())))
}

/// `YYMMDDHHMMSSZ`: the digits of `YYYY-MM-DDTHH:MM:SSZ` without the century.
fn utc_time(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let digits: String = text.chars().filter(char::is_ascii_digit).skip(2).collect();
    digits + "Z"
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut lines = String::new();
    for line in base64.as_bytes().chunks(LINE) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}
