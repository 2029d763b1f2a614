//! The test camera's picture: colour bars, a ball that bounces, the burnt-in clock.
//!
//! Painted here over GStreamer's black picture: its own moving patterns take five times the processor time, which the
//! encoder needs.

use crate::glyphs;

/// Brightness and both colour differences of the bars, from left to right: white to black at 75 %.
const BARS: [[u8; 3]; 8] = [
    [180, 128, 128],
    [162, 44, 142],
    [131, 156, 44],
    [112, 72, 58],
    [84, 184, 198],
    [65, 100, 212],
    [35, 212, 114],
    [16, 128, 128],
];
const BALL: [u8; 3] = [235, 128, 128];

/// Paints I420 pictures of one size.
#[derive(Debug)]
pub(crate) struct Painter {
    width: usize,
    height: usize,
    planes: [Plane; 3],
    background: Vec<u8>,
}

/// Where a plane lies in the picture, as GStreamer lays it out.
#[derive(Clone, Copy, Debug)]
struct Plane {
    at: usize,
    stride: usize,
    width: usize,
    height: usize,
    /// By how much it is smaller than the picture.
    scale: usize,
}

impl Painter {
    /// For pictures of these sides, which must be even.
    pub(crate) fn new(width: usize, height: usize) -> Painter {
        let luma = Plane { at: 0, stride: width.next_multiple_of(4), width, height, scale: 1 };
        let stride = (width / 2).next_multiple_of(4);
        let blue = Plane { at: luma.stride * height, stride, width: width / 2, height: height / 2, scale: 2 };
        let red = Plane { at: blue.at + stride * (height / 2), ..blue };
        let strip = glyphs::strip_height(width);
        let mut background = vec![0; red.at + stride * (height / 2)];
        for (which, plane) in [luma, blue, red].into_iter().enumerate() {
            let rows = background[plane.at..].chunks_exact_mut(plane.stride).take(plane.height);
            for (y, row) in rows.enumerate() {
                for (x, dot) in row[..plane.width].iter_mut().enumerate() {
                    // A black strip behind the clock, so that its characters have no colour.
                    let bar =
                        if y * plane.scale < strip { BARS.len() - 1 } else { x * BARS.len() / plane.width };
                    *dot = BARS[bar][which];
                }
            }
        }
        Painter { width, height, planes: [luma, blue, red], background }
    }

    /// Paints the picture of that number; `false` if `frame` is not as large as such a picture.
    pub(crate) fn paint(&self, frame: &mut [u8], number: u64, text: &str) -> bool {
        if frame.len() != self.background.len() {
            return false;
        }
        frame.copy_from_slice(&self.background);
        self.ball(frame, number);
        glyphs::draw(frame, self.planes[0].stride, self.width, text);
        true
    }

    fn ball(&self, frame: &mut [u8], number: u64) {
        let radius = (self.height.min(self.width) / 12).max(2);
        let x = bounce(number, 7, self.width - 2 * radius) + radius;
        let y = bounce(number, 4, self.height - 2 * radius) + radius;
        for (plane, value) in self.planes.iter().zip(BALL) {
            let (x, y, radius) = (x / plane.scale, y / plane.scale, radius / plane.scale);
            for row in y.saturating_sub(radius)..(y + radius).min(plane.height) {
                let half = (radius * radius - row.abs_diff(y).pow(2)).isqrt();
                let start = plane.at + row * plane.stride;
                let (left, right) = (x.saturating_sub(half), (x + half).min(plane.width));
                frame[start + left..start + right].fill(value);
            }
        }
    }
}

/// To and fro between 0 and `room`, `step` per picture.
fn bounce(number: u64, step: u64, room: usize) -> usize {
    let room = room.max(1);
    let way = usize::try_from(number.wrapping_mul(step) % (2 * room as u64)).unwrap_or(0);
    if way < room { way } else { 2 * room - way }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_painted_and_the_ball_moves() {
        for (width, height) in [(16, 16), (18, 16), (320, 240), (642, 362), (1280, 720)] {
            let painter = Painter::new(width, height);
            let size =
                width.next_multiple_of(4) * height + 2 * (width / 2).next_multiple_of(4) * (height / 2);
            let mut frames = [vec![0; size], vec![0; size]];
            for number in 0..200 {
                assert!(painter.paint(&mut frames[0], number, "12:00"));
            }
            assert!(painter.paint(&mut frames[1], 205, "12:00"));
            assert!(width < 320 || frames[0] != frames[1]);
            assert!(!painter.paint(&mut [0; 10], 0, ""));
        }
    }
}
