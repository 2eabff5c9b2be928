//! A certificate that is known by its thumbprint, whoever has signed it: what VDDK insists on for servers
//! whose certificates nobody else knows.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};

/// SHA-1 or SHA-256 of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin(Vec<u8>);

impl Pin {
    /// `AA:BB:..`, with any separators or none. `None` if it is neither 20 nor 32 bytes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(32);
        let mut high = None;
        for c in text.trim().chars() {
            if matches!(c, ':' | ' ' | '-') {
                continue;
            }
            let digit = u8::try_from(c.to_digit(16)?).ok()?;
            match high.take() {
                None => high = Some(digit),
                Some(high) => bytes.push((high << 4) | digit),
            }
            if bytes.len() > 32 {
                return None;
            }
        }
        (high.is_none() && matches!(bytes.len(), 20 | 32)).then_some(Self(bytes))
    }

    /// The same of another certificate.
    fn of(&self, certificate: &[u8]) -> Self {
        let algorithm = if self.0.len() == 20 {
            &SHA1_FOR_LEGACY_USE_ONLY
        } else {
            &SHA256
        };
        Self(digest(algorithm, certificate).as_ref().to_vec())
    }

    /// TLS with servers that have this certificate.
    pub(super) fn tls(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = Known {
            pin: self,
            provider: Arc::clone(&provider),
        };
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(known))
            .with_no_client_auth())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("its certificate has the thumbprint {found}, and not {wanted}, as was said")]
struct Other {
    found: Pin,
    wanted: Pin,
}

#[derive(Debug)]
struct Known {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self.pin.of(certificate);
        if found == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let wanted = self.pin.clone();
        let other = Arc::new(Other { found, wanted });
        Err(rustls::Error::Other(OtherError(other)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_are_read_as_people_write_them() {
        let plain = "aabbccddeeff00112233445566778899aabbccdd";
        let pin = Pin::parse(plain).unwrap();
        let shown = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";
        assert_eq!(pin.to_string(), shown);
        assert_eq!(Pin::parse(shown).unwrap(), pin);
        assert_eq!(Pin::parse(&shown.replace(':', " ")).unwrap(), pin);
        assert!(Pin::parse(&"ab".repeat(32)).is_some());
        for text in [
            "",
            "AA:BB",
            "xy",
            &plain[1..],
            &"ab".repeat(33),
            &"é".repeat(20),
        ] {
            assert_eq!(Pin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_digest_is_of_the_length_that_was_given() {
        let one = Pin(vec![0; 20]).of(b"abc");
        assert!(one.to_string().starts_with("A9:99:3E:36"));
        let two = Pin(vec![0; 32]).of(b"abc");
        assert!(two.to_string().starts_with("BA:78:16:BF"));
    }
}
