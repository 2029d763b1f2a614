//! Burnt-in text: a font of 5 x 7 dots, drawn into the brightness plane.
//!
//! Drawn here and not by GStreamer's text elements: those need fonts, their library and its cache, which a sandboxed
//! worker on a small image does not have.

const BLACK: u8 = 16;
const WHITE: u8 = 235;

/// Rows of five dots, the leftmost in bit 4.
fn glyph(c: char) -> [u8; 7] {
    // Small letters are shown as capitals.
    match c.to_ascii_uppercase() {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        ':' => [0, 4, 4, 0, 4, 4, 0],
        '-' => [0, 0, 0, 31, 0, 0, 0],
        '.' => [0, 0, 0, 0, 0, 12, 12],
        '#' => [10, 10, 31, 10, 31, 10, 10],
        'A' => [14, 17, 17, 31, 17, 17, 17],
        'B' => [30, 17, 17, 30, 17, 17, 30],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'D' => [30, 17, 17, 17, 17, 17, 30],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'F' => [31, 16, 16, 30, 16, 16, 16],
        'G' => [14, 17, 16, 23, 17, 17, 15],
        'H' => [17, 17, 17, 31, 17, 17, 17],
        'I' => [14, 4, 4, 4, 4, 4, 14],
        'J' => [7, 2, 2, 2, 2, 18, 12],
        'K' => [17, 18, 20, 24, 20, 18, 17],
        'L' => [16, 16, 16, 16, 16, 16, 31],
        'M' => [17, 27, 21, 21, 17, 17, 17],
        'N' => [17, 25, 21, 19, 17, 17, 17],
        'O' => [14, 17, 17, 17, 17, 17, 14],
        'P' => [30, 17, 17, 30, 16, 16, 16],
        'Q' => [14, 17, 17, 17, 21, 18, 13],
        'R' => [30, 17, 17, 30, 20, 18, 17],
        'S' => [15, 16, 16, 14, 1, 1, 30],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'U' => [17, 17, 17, 17, 17, 17, 14],
        'V' => [17, 17, 17, 17, 17, 10, 4],
        'W' => [17, 17, 17, 21, 21, 27, 17],
        'X' => [17, 17, 10, 4, 10, 17, 17],
        'Y' => [17, 17, 10, 4, 4, 4, 4],
        'Z' => [31, 1, 2, 4, 8, 16, 31],
        '_' => [0, 0, 0, 0, 0, 0, 31],
        '/' => [1, 1, 2, 4, 8, 16, 16],
        ',' => [0, 0, 0, 0, 4, 4, 8],
        '(' => [2, 4, 8, 8, 8, 4, 2],
        ')' => [8, 4, 2, 2, 2, 4, 8],
        '+' => [0, 4, 4, 31, 4, 4, 0],
        _ => [0; 7],
    }
}

/// How many rows at the top of a picture the text and the space around it take.
pub(crate) fn strip_height(width: usize) -> usize {
    17 * dot_side(width)
}

fn dot_side(width: usize) -> usize {
    (width / 320).max(1)
}

/// Draws `text` in a black box at the top left of a brightness plane of `stride` bytes per row; what does not fit is
/// left out.
pub(crate) fn draw(plane: &mut [u8], stride: usize, width: usize, text: &str) {
    let scale = dot_side(width);
    let (left, top) = (4 * scale, 4 * scale);
    for (column, glyph) in text.chars().map(glyph).enumerate() {
        let x0 = left + column * 6 * scale;
        if x0 + 6 * scale > width {
            return;
        }
        for y in 0..9 * scale {
            let row = (y / scale).checked_sub(1).and_then(|row| glyph.get(row)).copied().unwrap_or(0);
            let start = (top + y) * stride + x0;
            let Some(line) = plane.get_mut(start..start + 6 * scale) else { return };
            for (x, dot) in line.iter_mut().enumerate() {
                // The sixth column is the gap to the next character.
                let lit = (16 >> (x / scale)) & row != 0;
                *dot = if lit { WHITE } else { BLACK };
            }
        }
    }
}

/// `2026-11-21 02:10:33.123` in UTC.
pub(crate) fn clock_text(unix_micros: i64) -> String {
    let millis = unix_micros.div_euclid(1000);
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{millis:03}")
}

/// Days since 1970-01-01 to the Gregorian date; years counted from March, 400 at a time.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_reads_as_people_write_it() {
        assert_eq!(clock_text(0), "1970-01-01 00:00:00.000");
        assert_eq!(clock_text(951_827_696_789_000), "2000-02-29 12:34:56.789");
        assert_eq!(clock_text(1_795_226_399_999_999), "2026-11-21 01:59:59.999");
    }

    #[test]
    fn drawing_stays_inside_planes_of_any_size() {
        for (width, height) in [(2, 2), (64, 16), (320, 240), (1280, 720)] {
            let mut plane = vec![128; width * height];
            draw(&mut plane, width, width, &clock_text(0));
            let lit = plane.iter().filter(|dot| **dot == WHITE).count();
            assert_eq!(lit > 0, width >= 64, "{width}");
        }
    }
}
