//! The text of an API key: `elk_ID_SECRETCHECK`, in small letters and digits.
//!
//! ID (16 characters) finds the key and is no secret. SECRET (32 characters, 160 bits) is random. CHECK (6 characters) is
//! made of all before it, so that a typing error, or a scanner's find that is no key, is told without looking it up. Only
//! the SHA-256 of the whole text is kept: the text has 160 random bits, so a slow hash would gain nothing.

use std::fmt;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

const PREFIX: &str = "elk_";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const ID: usize = 16;
const SECRET: usize = 32;
const CHECK: usize = 6;
/// Bytes of a key's text.
const LENGTH: usize = PREFIX.len() + ID + 1 + SECRET + CHECK;

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandom;

/// What is kept of a key's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash([u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

impl Hash {
    /// Of a key's text.
    pub(crate) fn of(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    /// Whether it is of this text; the time says nothing about where they differ.
    pub(crate) fn is_of(&self, text: &str) -> bool {
        self.0.ct_eq(&Self::of(text).0).into()
    }

    /// As it is stored.
    pub(crate) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From the form in which it is stored.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

/// A new key: its id, and the text that is shown once.
pub(crate) struct Secret {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Secret {
    /// A key with a new id.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn new() -> Result<Self, NoRandom> {
        Self::of(random(ID)?)
    }

    /// Another text for the key of this id.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn of(id: String) -> Result<Self, NoRandom> {
        let text = format!("{PREFIX}{id}_{}", random(SECRET)?);
        let check = check(&text);
        Ok(Self { id, text: text + &check })
    }
}

/// The id in a key's text, if it is one: right in form, and its checksum fits.
pub(crate) fn id_of(text: &str) -> Option<&str> {
    if text.len() != LENGTH || !text.is_ascii() {
        return None;
    }
    let (id, rest) = text.strip_prefix(PREFIX)?.split_at(ID);
    let secret = rest.strip_prefix('_')?;
    let is_ours = |part: &str| part.bytes().all(|byte| ALPHABET.contains(&byte));
    let (before, given) = text.split_at(LENGTH - CHECK);
    (is_ours(id) && is_ours(secret) && check(before) == given).then_some(id)
}

/// How a key is shown after it was made.
pub(crate) fn shown(id: &str) -> String {
    format!("{PREFIX}{id}_…")
}

fn check(text: &str) -> String {
    letters(&digest(&SHA256, text.as_bytes()).as_ref()[..CHECK])
}

fn random(length: usize) -> Result<String, NoRandom> {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(letters(&bytes))
}

/// Five bits of each byte as a letter.
fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_id_and_no_other_text_is_one() {
        let key = Secret::new().unwrap();
        assert_eq!(id_of(&key.text), Some(key.id.as_str()));
        let hash = Hash::of(&key.text);
        assert!(hash.is_of(&key.text));
        assert_eq!(Hash::from_hex(&hash.to_hex()), Some(hash));
        for i in 0..key.text.len() {
            let mut other = key.text.clone().into_bytes();
            other[i] = if other[i] == b'a' { b'b' } else { b'a' };
            let other = String::from_utf8(other).unwrap();
            // One wrong character in 2^30 would pass the checksum; none passes the hash.
            assert!(id_of(&other).is_none() && !hash.is_of(&other), "{i}");
        }
        for bad in ["", "elk_", &key.text[1..], &format!("{}a", key.text), &"ü".repeat(30)] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_new_text_leaves_the_id_and_nothing_tells_the_secret() {
        let first = Secret::new().unwrap();
        let second = Secret::of(first.id.clone()).unwrap();
        assert_eq!(id_of(&second.text), Some(first.id.as_str()));
        assert_ne!(first.text, second.text);
        let told = format!("{first:?} {:?} {}", Hash::of(&first.text), shown(&first.id));
        assert!(!told.contains(&first.text[21..]));
    }
}
