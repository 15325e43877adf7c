//! Signatures of tokens, checked by ring: `jsonwebtoken` brings none of its own here. Its other providers are a second
//! library in C, and one whose RSA is not constant-time.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::settings::JwtAlgorithm;

/// Checks the four algorithms of the configuration, and signs nothing.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes it the one that is used. Again changes nothing.
pub(super) fn install() {
    // Only the first call does something; there is no other provider in this program.
    let _ = PROVIDER.install_default();
}

/// One key and the algorithm that it is for.
struct Check {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // A public key must not become the secret of another algorithm.
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA => {
            Ok(Box::new(Check { algorithm: *algorithm, key: key.kind().clone() }))
        }
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let right = match (self.algorithm, &self.key) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signed)
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, signed)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signed)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signed)
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        right.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtAlgorithm {
    /// As tokens call it.
    pub(super) fn of_tokens(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// SubjectPublicKeyInfo of RFC 8410 before the 32 bytes of an Ed25519 key.
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SubjectPublicKeyInfo of RFC 5480 before the 65 bytes of an uncompressed point of P-256.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The AlgorithmIdentifier of rsaEncryption (RFC 3279), which stands before the BIT STRING with the key.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The public key of a PEM file (`-----BEGIN PUBLIC KEY-----`).
pub(super) fn public_key(pem: &[u8], algorithm: JwtAlgorithm) -> std::result::Result<DecodingKey, String> {
    let info = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|error| format!("it holds no public key in PEM ({error})"))?;
    let info: &[u8] = info.as_ref();
    match algorithm {
        JwtAlgorithm::Hs256 => Err("HS256 has a secret and no public key".to_owned()),
        JwtAlgorithm::EdDsa => {
            let key = info.strip_prefix(&ED25519_HEAD).filter(|key| key.len() == 32);
            key.map(DecodingKey::from_ed_der).ok_or_else(|| "it holds no Ed25519 key".to_owned())
        }
        JwtAlgorithm::Es256 => {
            let key = info.strip_prefix(&P256_HEAD).filter(|key| key.len() == 65);
            key.map(DecodingKey::from_ec_der).ok_or_else(|| "it holds no P-256 key".to_owned())
        }
        JwtAlgorithm::Rs256 => {
            let key = rsa(info).filter(|key| !key.is_empty());
            key.map(DecodingKey::from_rsa_der).ok_or_else(|| "it holds no RSA key".to_owned())
        }
    }
}

/// The RSAPublicKey inside: SEQUENCE { AlgorithmIdentifier, BIT STRING { 0, RSAPublicKey } }.
fn rsa(info: &[u8]) -> Option<&[u8]> {
    let inside = value(info, 0x30)?;
    let bits = value(inside.strip_prefix(&RSA_ALGORITHM)?, 0x03)?;
    bits.strip_prefix(&[0])
}

/// The content of the DER value that makes up all of `bytes`, if it has this tag.
fn value(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
        _ => return None,
    };
    (rest.len() == length).then_some(rest)
}
