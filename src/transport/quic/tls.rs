//! TLS that knows peers by their keys: a certificate is only an envelope for an Ed25519 public key.
//!
//! Both sides show a self-signed certificate made from their identity, and each ignores everything in
//! the other's but the public key. The dialler demands the key it dials; the acceptor demands the key
//! it was told of, or takes any and lets [`admission`](crate::transport::link::admission) judge it afterwards. No names,
//! no dates, no authorities, no resumption, no early data from the dialler, and TLS 1.3 with X25519 and
//! Ed25519 only, so that there is nothing to negotiate down.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::seeded;
use crate::{
    entropy::Entropy,
    identity::{Identity, PeerId},
};

/// The application protocol, negotiated in TLS; a peer with another major version fails there.
pub const ALPN: &[u8] = b"p2p-node/1";

/// The name that every dialler gives to its TLS library; never sent, and the same for all peers.
pub const SERVER_NAME: &str = "p2p.invalid";

/// The algorithms and the randomness that TLS uses.
#[derive(Clone, Debug)]
pub struct Crypto(Arc<CryptoProvider>);

impl Crypto {
    /// `ring` with the operating system's randomness.
    pub fn system() -> Self {
        let mut provider = ring::default_provider();
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        Self(Arc::new(provider))
    }

    /// `ring` with all randomness drawn from `entropy`, so that a run in virtual time repeats byte for
    /// byte.
    ///
    /// For tests, the laboratory and the demo: each call leaks some 400 bytes, because rustls takes its
    /// sources of randomness as `'static` references.
    pub fn seeded(entropy: Entropy) -> Self {
        let mut provider = ring::default_provider();
        let random: &'static seeded::Random = Box::leak(Box::new(seeded::Random::new(entropy)));
        provider.secure_random = random;
        provider.kx_groups = vec![Box::leak(Box::new(seeded::X25519(random)))];
        Self(Arc::new(provider))
    }
}

/// What a node shows of itself in every handshake.
#[derive(Clone, Debug)]
pub struct Credentials {
    crypto: Crypto,
    certificate: Arc<SingleCertAndKey>,
}

impl Credentials {
    /// The credentials of `identity`: always the same certificate for the same identity.
    pub fn new(identity: &Identity, crypto: Crypto) -> Self {
        let key = PrivatePkcs8KeyDer::from(identity.to_pkcs8().to_vec()).into();
        let signing_key =
            crypto.0.key_provider.load_private_key(key).expect("ring takes every Ed25519 seed");
        let certificate = CertifiedKey::new(vec![self_signed(identity)], signing_key);
        Self { crypto, certificate: Arc::new(SingleCertAndKey::from(certificate)) }
    }

    /// A dialler's configuration that demands the key of `pin`.
    pub fn client_config(&self, pin: Arc<Pin>) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(self.crypto.0.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has cipher suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier {
                pin: Some(pin),
                crypto: self.crypto.clone(),
            }))
            .with_client_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config
    }

    /// An acceptor's configuration that demands the key of `pin`, or any Ed25519 key without one.
    pub fn server_config(&self, pin: Option<Arc<Pin>>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(self.crypto.0.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has cipher suites of TLS 1.3")
            .with_client_cert_verifier(Arc::new(Verifier { pin, crypto: self.crypto.clone() }))
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config
    }
}

/// The key that the other side must have, and what was seen instead.
#[derive(Debug)]
pub struct Pin {
    /// Who must answer.
    pub expected: PeerId,
    found: OnceLock<PeerId>,
}

impl Pin {
    /// Demands `expected`.
    pub fn new(expected: PeerId) -> Arc<Self> {
        Arc::new(Self { expected, found: OnceLock::new() })
    }

    /// The key that the other side showed, if it came so far.
    pub fn found(&self) -> Option<PeerId> {
        self.found.get().copied()
    }
}

/// Who is at the other end of `connection`; `None` before its certificate was verified.
pub fn peer_id_of(connection: &quinn::Connection) -> Option<PeerId> {
    let certificates =
        connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_id_in(certificates.first()?).ok()
}

fn peer_id_in(certificate: &CertificateDer<'_>) -> Result<PeerId, Error> {
    let malformed = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|_| malformed())?;
    let public_key = certificate.subject_public_key_info();
    public_key
        .strip_prefix(&SPKI_PREFIX)
        .and_then(|key| PeerId::from_slice(key).ok())
        .ok_or_else(malformed)
}

/// Verifies that the other side holds the private half of its key, and that the key is the pinned one.
#[derive(Debug)]
struct Verifier {
    pin: Option<Arc<Pin>>,
    crypto: Crypto,
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = peer_id_in(certificate)?;
        let Some(pin) = &self.pin else { return Ok(()) };
        let found = pin.found.get_or_init(|| found);
        if *found != pin.expected {
            // Becomes the alert access_denied, by which the other side learns the reason.
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        Ok(())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(Error::General("a signature that is not Ed25519".to_owned()));
        }
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.crypto.0.signature_verification_algorithms,
        )
    }
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Nothing in the certificate but the key carries meaning, so all else is fixed: the same identity
/// makes the same bytes.
fn self_signed(identity: &Identity) -> CertificateDer<'static> {
    let pkcs8 = identity.to_pkcs8();
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8.as_slice()),
        &rcgen::PKCS_ED25519,
    )
    .expect("ring takes every Ed25519 seed");
    let mut parameters = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])
        .expect("the constant name is a DNS name");
    parameters.serial_number = Some(rcgen::SerialNumber::from(1_u64));
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(4096, 1, 1);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.self_signed(&key).expect("an Ed25519 key signs any certificate").der().clone()
}

/// SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4); the 32 bytes of the key follow.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_peer_and_is_always_the_same() {
        let identity = Identity::from_seed([7; 32]);
        let certificate = self_signed(&identity);
        assert_eq!(peer_id_in(&certificate), Ok(identity.peer_id()));
        assert_eq!(certificate, self_signed(&identity));
        assert!(certificate.len() < 400, "{} bytes", certificate.len());
    }

    #[test]
    fn a_certificate_with_another_kind_of_key_is_refused() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let parameters = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert!(peer_id_in(certificate.der()).is_err());
    }

    #[test]
    fn damaged_certificates_are_taken_calmly() {
        let whole = self_signed(&Identity::from_seed([7; 32]));
        for size in 0..whole.len() {
            let part = CertificateDer::from(whole[..size].to_vec());
            assert!(peer_id_in(&part).is_err());
        }
        for position in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[position] ^= 0x55;
            let _ = peer_id_in(&CertificateDer::from(bytes));
        }
    }

    #[test]
    fn there_is_nothing_to_negotiate_down() {
        let Crypto(provider) = Crypto::system();
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [NamedGroup::X25519]);
    }
}
