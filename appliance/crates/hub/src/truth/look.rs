//! The figures of one decoded picture.

use std::hash::{DefaultHasher, Hasher};

/// What a decoded keyframe looks like. Brightness is 0 to 255. Forms, edges and sharpness are taken from the picture
/// scaled to about 320 pixels in width, so that they depend neither on the camera's size nor much on its noise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Look {
    /// Mean brightness.
    pub mean: f32,
    /// Its standard deviation over single pixels.
    pub deviation: f32,
    /// The standard deviation of the means of cells of 20 by 20 scaled pixels: large forms, without noise.
    pub structure: f32,
    /// The share of pixels without light, 0 to 1.
    pub black: f32,
    /// The share of places with an edge, 0 to 1.
    pub edges: f32,
    /// How steep the steepest edges are: 1 within a pixel, 0.1 over ten; 0 without any.
    pub sharpness: f32,
    /// Equal for pictures that are equal in every pixel.
    pub fingerprint: u64,
}

/// Brightness up to which a pixel has no light; video black is 16.
const BLACK: u8 = 24;
const SCALED_WIDTH: usize = 320;
const CELL: usize = 20;
/// An edge is looked for in so many pixels, in steps of a quarter of it.
const REACH: usize = 17;
const STEP: usize = 4;
/// Difference in brightness that makes an edge; more than noise makes.
const EDGE: u8 = 32;
/// Of all edges the steepest twentieth counts: a picture is in focus if anything in it is.
const STEEPEST: usize = 20;
const BINS: usize = 100;

impl Look {
    /// Looks at the brightness of a picture: rows of `width` bytes, `stride` bytes apart. `None` if `luma` is shorter
    /// than `height` such rows, or a side is zero.
    pub fn of(luma: &[u8], width: usize, height: usize, stride: usize) -> Option<Look> {
        let needed = stride.checked_mul(height.checked_sub(1)?)?.checked_add(width)?;
        if width == 0 || stride < width || luma.len() < needed {
            return None;
        }
        let rows = || luma.chunks(stride).take(height).filter_map(|row| row.get(..width));
        let mut hasher = DefaultHasher::new();
        let (mut sum, mut squares, mut black) = (0_u64, 0_u64, 0_u64);
        for row in rows() {
            hasher.write(row);
            // Sums of a row fit into 32 bits, which vectorises.
            let mut row_sums = (0_u32, 0_u32, 0_u32);
            for &dot in row {
                row_sums.0 += u32::from(dot);
                row_sums.1 = row_sums.1.wrapping_add(u32::from(dot) * u32::from(dot));
                row_sums.2 += u32::from(dot <= BLACK);
            }
            sum += u64::from(row_sums.0);
            squares += u64::from(row_sums.1);
            black += u64::from(row_sums.2);
        }
        let count = (width * height) as f64;
        let mean = sum as f64 / count;
        let deviation = (squares as f64 / count - mean * mean).max(0.0).sqrt();
        let scaled = Scaled::of(rows(), width);
        let (edges, sharpness) = scaled.edges();
        Some(Look {
            mean: mean as f32,
            deviation: deviation as f32,
            structure: scaled.structure(),
            black: (black as f64 / count) as f32,
            edges,
            sharpness,
            fingerprint: hasher.finish(),
        })
    }
}

/// A picture of about [`SCALED_WIDTH`], each pixel the mean of a square.
struct Scaled {
    width: usize,
    dots: Vec<u8>,
}

impl Scaled {
    fn of<'a>(rows: impl Iterator<Item = &'a [u8]>, full_width: usize) -> Scaled {
        let factor = (full_width / SCALED_WIDTH).max(1);
        let width = full_width / factor;
        let (mut dots, mut sums, mut taken) = (Vec::new(), vec![0_u32; width], 0);
        let area = u32::try_from(factor * factor).unwrap_or(u32::MAX);
        for row in rows {
            for (sum, square) in sums.iter_mut().zip(row.chunks_exact(factor)) {
                *sum += square.iter().map(|dot| u32::from(*dot)).sum::<u32>();
            }
            taken += 1;
            if taken == factor {
                dots.extend(sums.iter().map(|sum| u8::try_from(sum / area).unwrap_or(u8::MAX)));
                sums.fill(0);
                taken = 0;
            }
        }
        Scaled { width, dots }
    }

    fn structure(&self) -> f32 {
        let mut means = Vec::new();
        for band in self.dots.chunks_exact(self.width * CELL) {
            for column in 0..self.width / CELL {
                let cells =
                    band.chunks_exact(self.width).filter_map(|row| row.chunks_exact(CELL).nth(column));
                let sum: u32 = cells.flatten().map(|dot| u32::from(*dot)).sum();
                means.push(sum as f32 / (CELL * CELL) as f32);
            }
        }
        let count = means.len().max(1) as f32;
        let mean = means.iter().sum::<f32>() / count;
        (means.iter().map(|cell| (cell - mean) * (cell - mean)).sum::<f32>() / count).sqrt()
    }

    /// The share of places with an edge, and how steep the steepest are.
    fn edges(&self) -> (f32, f32) {
        let (mut places, mut found, mut bins) = (0_usize, 0_usize, [0_usize; BINS + 1]);
        let mut look = |line: &[u8]| {
            for place in line.windows(REACH).step_by(STEP) {
                places += 1;
                let (mut low, mut high, mut steepest) = (u8::MAX, 0, 0);
                for (dot, next) in place.iter().zip(place.iter().skip(1).chain(place.last())) {
                    (low, high) = (low.min(*dot), high.max(*dot));
                    steepest = steepest.max(dot.abs_diff(*next));
                }
                let range = high - low;
                if range >= EDGE {
                    found += 1;
                    let bin = usize::from(steepest) * BINS / usize::from(range);
                    bins.get_mut(bin).into_iter().for_each(|bin| *bin += 1);
                }
            }
        };
        self.dots.chunks_exact(self.width).step_by(2).for_each(&mut look);
        let mut column = Vec::with_capacity(self.dots.len() / self.width.max(1));
        for x in (0..self.width).step_by(2) {
            column.clear();
            column.extend(self.dots.iter().skip(x).step_by(self.width));
            look(&column);
        }
        let mut left = found / STEEPEST;
        let steep = bins.iter().enumerate().rev().find(|(_, count)| {
            let is_there = left < **count;
            left = left.saturating_sub(**count);
            is_there
        });
        let sharpness = steep.map_or(0.0, |(bin, _)| bin as f32 / BINS as f32);
        (found as f32 / places.max(1) as f32, sharpness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_noise_and_edges_have_their_own_figures() {
        let (width, height) = (640, 360);
        let flat = Look::of(&vec![100; width * height], width, height, width).unwrap();
        assert_eq!((flat.mean, flat.deviation, flat.structure, flat.black), (100.0, 0.0, 0.0, 0.0));
        assert_eq!((flat.edges, flat.sharpness), (0.0, 0.0));

        let dark = Look::of(&vec![16; width * height], width, height, width).unwrap();
        assert_eq!(dark.black, 1.0);
        assert_ne!(dark.fingerprint, flat.fingerprint);

        let bars: Vec<u8> =
            (0..width * height).map(|at| if at % width / 80 % 2 == 0 { 30 } else { 200 }).collect();
        let bars = Look::of(&bars, width, height, width).unwrap();
        assert!(bars.sharpness > 0.8 && bars.edges > 0.1 && bars.structure > 50.0, "{bars:?}");

        let ramp: Vec<u8> = (0..width * height).map(|at| (at % width * 255 / width) as u8).collect();
        let ramp = Look::of(&ramp, width, height, width).unwrap();
        assert!(ramp.edges == 0.0 && ramp.structure > 50.0, "{ramp:?}");
    }

    #[test]
    fn odd_sizes_and_padded_rows_are_looked_at_and_short_ones_refused() {
        for (width, height, stride) in
            [(1, 1, 1), (2, 2, 16), (15, 700, 32), (1919, 3, 1920), (4096, 17, 4096)]
        {
            let luma = vec![50; stride * (height - 1) + width];
            let look = Look::of(&luma, width, height, stride).unwrap();
            assert_eq!((look.mean, look.deviation), (50.0, 0.0));
            assert!(Look::of(&luma[1..], width, height, stride).is_none());
        }
        for (width, height, stride) in [(0, 1, 1), (1, 0, 1), (2, 2, 1), (usize::MAX, usize::MAX, usize::MAX)]
        {
            assert!(Look::of(&[0; 64], width, height, stride).is_none());
        }
    }
}
