//! Why TLS failed, as few words: what an operator can act on.

use rustls::{CertificateError, Error, PeerIncompatible, PeerMisbehaved};

/// Why a handshake failed, or an established connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The first bytes are those of a plain HTTP request.
    PlainHttp,
    /// Not TLS, or a message that cannot be read.
    Garbage,
    /// No version of TLS that both speak.
    Version,
    /// No cipher suite, group, signature scheme or ALPN protocol that both know.
    NoCommonParameters,
    /// The peer gave no certificate where one is required.
    NoCertificate,
    /// The peer's certificate is not valid at this time.
    Expired,
    UnknownIssuer,
    /// The peer's certificate is for other names.
    WrongName,
    /// Any other fault of the peer's certificate: purpose, signature, encoding, revoked.
    BadCertificate,
    /// The peer sent a fatal alert of this number (RFC 8446 section 6).
    Alert(u8),
    /// A record that does not decrypt.
    BadRecord,
    /// Well-formed, but not allowed at that place.
    Misbehaved,
    /// Something on our side: no certificate for the name, no random bytes, a key that has been used up.
    Internal,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Failure {
        match error {
            Error::InvalidMessage(_) => Failure::Garbage,
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
