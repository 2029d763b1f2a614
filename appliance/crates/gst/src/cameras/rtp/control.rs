//! RTCP that comes with a stream: of all that it can say, only the sender's own clock is listened to.
//!
//! Everything else that RTCP may name (other sources, goodbyes, feedback) would be kept or obeyed by the elements, for
//! whoever sends it.

const SENDER_REPORT: u8 = 200;
const SOURCE_DESCRIPTION: u8 = 202;
/// Head, SSRC and the sender's clock and counts; report blocks may follow.
const SENDER_REPORT_LEN: usize = 28;

/// The sender report of `ssrc` without its report blocks, and its name (by which sound and picture are known to belong
/// together), out of a compound packet (RFC 3550, section 6.1). `None` when there is none.
pub(super) fn reports(packet: &[u8], ssrc: u32) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = packet;
    while let [first, kind, high, low, ..] = *rest {
        let len = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        let (part, after) = rest.split_at_checked(len)?;
        let is_own = part.get(4..8) == Some(&ssrc.to_be_bytes()[..]);
        match kind {
            _ if first >> 6 != 2 => return None,
            SENDER_REPORT if is_own && out.is_empty() => {
                let words = u8::try_from(SENDER_REPORT_LEN / 4 - 1).unwrap_or(0);
                out.extend_from_slice(&[0x80, SENDER_REPORT, 0, words]);
                out.extend_from_slice(part.get(4..SENDER_REPORT_LEN)?);
            }
            // One chunk, without padding.
            SOURCE_DESCRIPTION if is_own && first & 0x3f == 1 && out.len() == SENDER_REPORT_LEN => {
                out.extend_from_slice(part);
            }
            _ => {}
        }
        rest = after;
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: u32 = 0x0102_0304;

    fn part(first: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let words = u8::try_from(body.len() / 4).unwrap();
        let mut out = vec![first, kind, 0, words];
        out.extend_from_slice(body);
        out
    }

    fn report(ssrc: u32, blocks: u8) -> Vec<u8> {
        let mut body = ssrc.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; 20]);
        body.extend(std::iter::repeat_n(9, 24 * usize::from(blocks)));
        part(0x80 | blocks, SENDER_REPORT, &body)
    }

    fn name(ssrc: u32) -> Vec<u8> {
        let mut body = ssrc.to_be_bytes().to_vec();
        body.extend_from_slice(b"\x01\x04gate\0\0");
        part(0x81, SOURCE_DESCRIPTION, &body)
    }

    #[test]
    fn the_senders_clock_and_name_are_all_that_is_taken() {
        let goodbye = part(0x81, 203, &SSRC.to_be_bytes());
        let all = [report(SSRC, 2), name(SSRC), goodbye.clone()].concat();
        assert_eq!(reports(&all, SSRC).unwrap(), [report(SSRC, 0), name(SSRC)].concat());
        assert_eq!(reports(&report(SSRC, 0), SSRC).unwrap(), report(SSRC, 0));
        for nothing in [goodbye, name(SSRC), part(0x80, 201, &SSRC.to_be_bytes())] {
            assert_eq!(reports(&nothing, SSRC), None);
        }
    }

    #[test]
    fn what_others_say_in_the_senders_name_is_not_taken() {
        assert_eq!(reports(&report(SSRC + 1, 0), SSRC), None);
        let mixed = [report(SSRC, 0), report(SSRC, 0), name(SSRC + 1)].concat();
        assert_eq!(reports(&mixed, SSRC).unwrap(), report(SSRC, 0));
        let mut many = name(SSRC);
        many[0] = 0x82;
        assert_eq!(reports(&[report(SSRC, 0), many].concat(), SSRC).unwrap(), report(SSRC, 0));
    }

    #[test]
    fn damaged_reports_are_survived() {
        let whole = [report(SSRC, 1), name(SSRC)].concat();
        for at in 0..whole.len() {
            let _ = reports(&whole[..at], SSRC);
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                if let Some(taken) = reports(&bytes, SSRC) {
                    assert!(taken.len() <= whole.len() && taken[4..8] == SSRC.to_be_bytes(), "{at} {bit}");
                }
            }
        }
        assert_eq!(reports(&whole[..whole.len() - 1], SSRC), None, "a part is missing");
    }
}
