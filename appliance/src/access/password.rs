//! Passwords: which are taken, and how they are kept (argon2id).

use super::secret::{hex, random, unhex};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::{Mutex, PoisonError};
use subtle::ConstantTimeEq as _;

/// Fewest characters.
pub(super) const PASSWORD_MIN: usize = 10;
/// Most bytes.
pub(super) const PASSWORD_MAX: usize = 256;
/// Fewest characters that differ.
const DIFFERENT_MIN: usize = 5;

/// What one hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cost {
    memory_kib: u32,
    passes: u32,
}

impl Cost {
    /// One of the least settings that OWASP's password storage guide names: 12 MiB fit beside everything else on a board
    /// with 512 MiB, and take about half a second on a slow ARM core.
    pub(super) const NORMAL: Cost = Cost { memory_kib: 12 << 10, passes: 3 };
    /// For tests of everything else.
    #[cfg(test)]
    pub(super) const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };
    /// Most that is taken from a file: no file may ask for all memory.
    const MOST: Cost = Cost { memory_kib: 64 << 10, passes: 16 };
}

/// A password as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hashed {
    #[serde(flatten)]
    cost: Cost,
    salt: String,
    argon2id: String,
}

/// Why a password is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password has at least {PASSWORD_MIN} characters and at most {PASSWORD_MAX} bytes")]
    Length,
    /// `aaaaaaaaaa` and the like.
    #[error("this password repeats itself: use at least {DIFFERENT_MIN} different characters")]
    Monotonous,
    /// Holds the user's own name.
    #[error("a password must not hold the user's name")]
    HoldsName,
}

/// Whether this may be the password of this user.
pub(super) fn check(user: &str, password: &str) -> Result<(), PasswordError> {
    let mut different: Vec<char> = password.chars().collect();
    let len = different.len();
    different.sort_unstable();
    different.dedup();
    if len < PASSWORD_MIN || password.len() > PASSWORD_MAX {
        Err(PasswordError::Length)
    } else if different.len() < DIFFERENT_MIN {
        Err(PasswordError::Monotonous)
    } else if user.len() >= 3 && password.to_lowercase().contains(&user.to_lowercase()) {
        Err(PasswordError::HoldsName)
    } else {
        Ok(())
    }
}

/// Makes and compares hashes, one at a time: however many ask, they take the memory of one.
pub(super) struct Hasher {
    cost: Cost,
    turn: Mutex<()>,
    /// Compared with where there is no such user, so that a name is not told by time.
    nobody: Hashed,
}

impl Hasher {
    pub(super) fn new(cost: Cost) -> io::Result<Self> {
        let nobody = Hashed { cost, salt: hex(&random::<16>()?), argon2id: hex(&random::<32>()?) };
        Ok(Hasher { cost, turn: Mutex::default(), nobody })
    }

    /// Waits for its turn, then computes: some tenths of a second.
    pub(super) fn hash(&self, password: &str) -> io::Result<Hashed> {
        let salt = random::<16>()?;
        let digest = self.compute(self.cost, &salt, password)?;
        Ok(Hashed { cost: self.cost, salt: hex(&salt), argon2id: hex(&digest) })
    }

    /// Whether this is the password; as slow where there is none to compare with. A hash that cannot be read fits none.
    pub(super) fn fits(&self, kept: Option<&Hashed>, password: &str) -> bool {
        let against = kept.unwrap_or(&self.nobody);
        let salt = unhex(&against.salt).unwrap_or_default();
        let expected = unhex(&against.argon2id).unwrap_or_default();
        let computed = self.compute(against.cost, &salt, password);
        let fits = computed.is_ok_and(|digest| bool::from(digest.as_slice().ct_eq(&expected)));
        fits && kept.is_some()
    }

    fn compute(&self, cost: Cost, salt: &[u8], password: &str) -> io::Result<[u8; 32]> {
        // More would be cut off by no one; the caller's limit is the same.
        if password.len() > PASSWORD_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let unusable = |error: argon2::Error| io::Error::other(error.to_string());
        let memory_kib = cost.memory_kib.min(Cost::MOST.memory_kib);
        let params =
            Params::new(memory_kib, cost.passes.min(Cost::MOST.passes), 1, Some(32)).map_err(unusable)?;
        let mut digest = [0_u8; 32];
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(password.as_bytes(), salt, &mut digest).map_err(unusable)?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_and_no_other_does() {
        let hasher = Hasher::new(Cost::NORMAL).unwrap();
        let kept = hasher.hash("correct horse").unwrap();
        assert!(hasher.fits(Some(&kept), "correct horse"));
        let cheap = Hasher::new(Cost::CHEAP).unwrap();
        assert!(cheap.fits(Some(&kept), "correct horse"), "a hash brings its own cost");
        assert!(!hasher.fits(Some(&kept), "correct horsf") && !hasher.fits(Some(&kept), ""));
        assert!(!hasher.fits(None, "correct horse"));
        assert_ne!(cheap.hash("correct horse").unwrap(), cheap.hash("correct horse").unwrap(), "salted");
        let stored = serde_json::to_string(&kept).unwrap();
        assert!(!stored.contains("horse"));
        assert_eq!(serde_json::from_str::<Hashed>(&stored).unwrap(), kept);
    }

    #[test]
    fn a_hash_that_was_tampered_with_fits_nothing_and_takes_no_memory() {
        let hasher = Hasher::new(Cost::CHEAP).unwrap();
        let kept = hasher.hash("correct horse").unwrap();
        for broken in [
            Hashed { salt: "xx".to_owned(), ..kept.clone() },
            Hashed { argon2id: String::new(), ..kept.clone() },
            Hashed { cost: Cost { memory_kib: 0, passes: 0 }, ..kept.clone() },
        ] {
            assert!(!hasher.fits(Some(&broken), "correct horse"));
        }
        let greedy = Hashed { cost: Cost { memory_kib: u32::MAX, passes: 1 }, ..kept };
        assert!(!hasher.fits(Some(&greedy), "correct horse"), "computed with at most 64 MiB");
    }

    #[test]
    fn passwords_that_are_easily_guessed_are_not_taken() {
        assert_eq!(check("bob", "staple battery"), Ok(()));
        assert_eq!(check("bob", "123456789"), Err(PasswordError::Length));
        assert_eq!(check("bob", &"abcdefgh".repeat(32)), Ok(()));
        assert_eq!(check("bob", &format!("{}x", "abcdefgh".repeat(32))), Err(PasswordError::Length));
        assert_eq!(check("bob", "abababababab"), Err(PasswordError::Monotonous));
        assert_eq!(check("bob", "iamBOB-2026"), Err(PasswordError::HoldsName));
        assert_eq!(check("bob", "\u{e4}\u{f6}\u{fc}\u{df}xyzuvw"), Ok(()));
    }
}
