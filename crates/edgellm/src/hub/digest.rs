//! The hub's checksums.

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The checksum that the hub gives as a file's ETag: the sha256 of a large file (64 hex digits), or the sha1
/// that git gives a small one (40 hex digits, over `blob LENGTH\0` and the bytes). It also is the file's name in
/// the cache, so it is nothing but lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    hex: String,
}

impl Checksum {
    /// Reads an ETag: quotes and the mark of a weak tag are not part of it.
    pub(crate) fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let is_hash = matches!(hex.len(), 40 | 64) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then_some(Self { hex })
    }

    /// The hex digits.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }

    /// Begins to hash a file of this many bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        if self.hex.len() == 64 {
            return Hasher::Sha256(Sha256::new());
        }
        let mut sha1 = Sha1::new();
        sha1.update(format!("blob {size}\0"));
        Hasher::Git(sha1)
    }
}

/// A checksum in the making.
pub(crate) enum Hasher {
    /// Of a file that git LFS or Xet stores.
    Sha256(Sha256),
    /// Of a file that git itself stores.
    Git(Sha1),
}

impl Hasher {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// The hex digits of all bytes so far.
    pub(crate) fn finish(self) -> String {
        let bytes = match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Git(hasher) => hasher.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures from `printf 'hello\n' | sha256sum` and `printf 'hello\n' | git hash-object --stdin`.
    #[test]
    fn agrees_with_sha256sum_and_git() {
        for etag in [
            "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
            "W/\"ce013625030ba8dba906f756967f9e9ca394464a\"",
        ] {
            let checksum = Checksum::from_etag(etag).unwrap();
            let mut hasher = checksum.hasher(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.finish(), checksum.hex());
        }
    }

    #[test]
    fn refuses_an_etag_that_is_no_hash() {
        for etag in ["", "\"\"", "abc", "../../etc/passwd", &"g".repeat(64), &"0".repeat(63)] {
            assert_eq!(Checksum::from_etag(etag), None, "{etag}");
        }
    }
}
