//! Why TLS failed, in the terms that an operator can act on.

use rustls::{CertificateError, Error, PeerIncompatible, PeerMisbehaved};
use std::fmt;

/// Why a handshake failed, or an established connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The first bytes are those of a plain HTTP request.
    PlainHttp,
    /// Not TLS, or a message that cannot be parsed.
    Malformed,
    /// No TLS version in common.
    Version,
    /// No cipher suite, group, signature scheme or ALPN protocol in common.
    NoCommonParameters,
    /// The peer presented no certificate although one is required.
    NoCertificate,
    /// The peer's certificate is not valid at this time.
    Expired,
    UnknownIssuer,
    /// The peer's certificate is for other names.
    WrongName,
    /// Any other error in the peer's certificate: purpose, signature, encoding, revocation.
    BadCertificate,
    /// The peer sent a fatal alert of this number (RFC 8446 section 6).
    Alert(u8),
    /// A record that cannot be decrypted.
    BadRecord,
    /// A well-formed message that is not allowed at this point.
    Misbehaved,
    /// An error on our side: no usable certificate, no random bytes, an exhausted key.
    Internal,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Failure {
        match error {
            Error::InvalidMessage(_) => Failure::Malformed,
            Error::PeerIncompatible(why) => incompatible(why),
            Error::NoApplicationProtocol => Failure::NoCommonParameters,
            Error::NoCertificatesPresented => Failure::NoCertificate,
            Error::InvalidCertificate(why) => certificate(why),
            Error::AlertReceived(alert) => Failure::Alert(u8::from(*alert)),
            Error::DecryptError => Failure::BadRecord,
            Error::PeerMisbehaved(PeerMisbehaved::SelectedUnusableCipherSuiteForVersion) => Failure::NoCommonParameters,
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord => Failure::Misbehaved,
            _ => Failure::Internal,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::PlainHttp => "the peer speaks plain HTTP",
            Failure::Malformed => "malformed message",
            Failure::Version => "no TLS version in common",
            Failure::NoCommonParameters => "no parameters in common",
            Failure::NoCertificate => "no certificate",
            Failure::Expired => "the certificate has expired or is not valid yet",
            Failure::UnknownIssuer => "the issuer of the certificate is unknown",
            Failure::WrongName => "the certificate is for another name",
            Failure::BadCertificate => "invalid certificate",
            Failure::Alert(alert) => return write!(f, "the peer sent alert {alert}"),
            Failure::BadRecord => "a record cannot be decrypted",
            Failure::Misbehaved => "unexpected message",
            Failure::Internal => "internal error",
        })
    }
}

fn incompatible(why: &PeerIncompatible) -> Failure {
    use PeerIncompatible as P;
    match why {
        P::ServerDoesNotSupportTls12Or13
        | P::SupportedVersionsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::Tls13RequiredForQuic
        | P::ServerTlsVersionIsDisabledByOurConfig => Failure::Version,
        _ => Failure::NoCommonParameters,
    }
}

fn certificate(why: &CertificateError) -> Failure {
    use CertificateError as C;
    match why {
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => Failure::Expired,
        C::UnknownIssuer => Failure::UnknownIssuer,
        C::NotValidForName | C::NotValidForNameContext { .. } => Failure::WrongName,
        _ => Failure::BadCertificate,
    }
}
