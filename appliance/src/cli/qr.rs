//! QR codes on a terminal, and the links in them: a phone's camera opens the page, which takes the rest from behind the `#`.
//! Browsers send nothing of that to anybody.

use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write as _;

/// Longest text of one code, in bytes: its 97 columns and 49 lines fit on a laptop's screen, and phones read them there.
pub(super) const TEXT_MAX: usize = 700;
/// Most codes of one bundle.
pub(super) const PARTS_MAX: usize = 20;
/// Longest address of a page, in bytes.
const ADDRESS_MAX: usize = 200;
/// What stands before a part, at its longest: `20.20.0123abcd.`
const PART_HEAD_MAX: usize = 15;
/// Modules of white around a code, without which readers do not see it.
const QUIET: i32 = 4;

/// Why there is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QrError {
    /// No address of a page.
    #[error(
        "the page's address must be http:// or https://, of at most {ADDRESS_MAX} plain characters without #; got {0:?}"
    )]
    Address(String),
    /// Too much for codes.
    #[error(
        "a bundle of {len} bytes would take {parts} codes, and at most {PARTS_MAX} are made: sign a patch instead of a \
         whole config, or carry the bundle in a file"
    )]
    TooMany {
        /// Of the bundle.
        len: usize,
        /// How many it would take.
        parts: usize,
    },
    /// Too much for one code.
    #[error("{0} bytes do not fit into a QR code")]
    TooLong(usize),
}

/// The page's address as it stands before a `#`.
pub(super) fn page(address: &str) -> Result<String, QrError> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let is_good = rest.is_some_and(|rest| !rest.trim_end_matches('/').is_empty())
        && address.len() <= ADDRESS_MAX
        && is_plain(address);
    if !is_good {
        return Err(QrError::Address(address.chars().take(ADDRESS_MAX).collect()));
    }
    Ok(format!("{}/", address.trim_end_matches('/')))
}

/// What the codes of a bundle say: links to the page at this address, else the bare text. `digest` tells bundles apart.
pub(super) fn bundle(text: &str, digest: &str, page: Option<&str>) -> Result<Vec<String>, QrError> {
    let before = page.map(|page| format!("{page}#bundle=")).unwrap_or_default();
    if before.len() + text.len() <= TEXT_MAX {
        return Ok(vec![before + text]);
    }
    let room = TEXT_MAX - before.len() - PART_HEAD_MAX;
    let parts = text.len().div_ceil(room);
    if parts > PARTS_MAX {
        return Err(QrError::TooMany { len: text.len(), parts });
    }
    let digest: String = digest.chars().take(8).collect();
    let pieces = text.as_bytes().chunks(room).map(String::from_utf8_lossy);
    Ok(pieces.zip(1..).map(|(piece, number)| format!("{before}{number}.{parts}.{digest}.{piece}")).collect())
}

/// A code of half blocks, two modules in one character, black on white whatever the terminal's colours are.
pub(super) fn drawn(text: &str) -> Result<String, QrError> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).map_err(|_| QrError::TooLong(text.len()))?;
    let mut out = String::new();
    for row in (-QUIET..code.size() + QUIET).step_by(2) {
        out.push_str("\x1b[30;47m");
        for column in -QUIET..code.size() + QUIET {
            out.push(match (code.get_module(column, row), code.get_module(column, row + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            });
        }
        let _ = writeln!(out, "\x1b[0m");
    }
    Ok(out)
}

#[cfg(test)]
pub(super) mod tests;
