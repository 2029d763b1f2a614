//! What must hold for any bytes sent as a bundle. Plain functions, for tests and fuzzing.

use crate::{Bundle, KeyRing, TEXT_MAX, Target, Variables, judge};
use fieldgate_model::Timestamp;

/// No panic; and what is read and signed again is the same.
pub fn bundle(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(Bundle::open(text, &KeyRing::default()).is_err(), "nobody is believed without a key");
    let Ok(shown) = Bundle::show(text) else { return };
    assert!(text.trim_ascii().len() <= TEXT_MAX);
    let target = Target { device: "fg-1", groups: &[], now: Timestamp::default(), taken: None };
    judge(&shown, &target).ok();
    shown.content_for("fg-1", &Variables::new()).ok();
    let again = serde_json::to_string(&shown.draft).expect("what was read can be written");
    let again = serde_json::from_str(&again).expect("what was written can be read");
    assert_eq!(shown.draft, again);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::{draft, key};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut roll = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below.max(1) as u64) as usize
        };
        let whole = draft().sign("fleet-1", &key()).unwrap().into_bytes();
        let payload = serde_json::to_vec(&draft()).unwrap();
        let mut read = 0;
        for round in 0..20_000 {
            // Half of them are broken as text, half inside of what is encoded.
            let mut bytes = if round % 2 == 0 { whole.clone() } else { payload.clone() };
            for _ in 0..1 + roll(3) {
                let at = roll(bytes.len());
                match roll(4) {
                    0 => bytes[at] ^= 1 << roll(8),
                    1 => bytes[at] = b"{}[]\",:.0"[roll(9)],
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let piece = bytes[at..(at + roll(80)).min(bytes.len())].to_vec();
                        let to = roll(bytes.len());
                        bytes.splice(to..to, piece);
                    }
                }
            }
            if round % 2 == 1 {
                bytes = format!("fgb1.k.{}.AA", URL_SAFE_NO_PAD.encode(&bytes)).into_bytes();
            }
            read += usize::from(std::str::from_utf8(&bytes).is_ok_and(|text| Bundle::show(text).is_ok()));
            bundle(&bytes);
        }
        assert!(read > 500, "mutations must not all be refused at once: {read}");
    }
}
