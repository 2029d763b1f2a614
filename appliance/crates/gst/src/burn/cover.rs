//! Which pixels masks cover in pictures of one size.
//!
//! A pixel that a mask only touches is covered too, and one more around it, so that no scaler's or colour conversion's
//! blur shows a rim of what is hidden.

use fieldgate_model::masks::{Mask, Masks, Point};

/// Pixels from `from` up to `to` of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) row: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// All covered pixels of the brightness plane and of the colour planes, which have half its size.
#[derive(Debug)]
pub(super) struct Cover {
    luma: Vec<Span>,
    chroma: Vec<Span>,
}

impl Cover {
    pub(super) fn new(masks: &Masks, width: u32, height: u32) -> Cover {
        let (width, height) = (width as usize, height as usize);
        let mut rows = vec![Vec::new(); height];
        for mask in masks.iter() {
            draw(&corners(mask), width, height, &mut rows);
        }
        let luma: Vec<Span> = spans(&rows).collect();
        let mut halves = vec![Vec::new(); height.div_ceil(2)];
        for span in &luma {
            if let Some(row) = halves.get_mut(span.row / 2) {
                row.push((span.from / 2, span.to.div_ceil(2)));
            }
        }
        Cover { chroma: spans(&halves).collect(), luma }
    }

    pub(super) fn spans(&self, luma: bool) -> &[Span] {
        if luma { &self.luma } else { &self.chroma }
    }
}

fn corners(mask: &Mask) -> Vec<Point> {
    match mask {
        Mask::Polygon(corners) => corners.clone(),
        Mask::Rectangle { from, to } => {
            vec![*from, Point { x: to.x, y: from.y }, *to, Point { x: from.x, y: to.y }]
        }
    }
}

/// Adds what a polygon covers of each row, with a margin of one pixel.
fn draw(corners: &[Point], width: usize, height: usize, rows: &mut [Vec<(usize, usize)>]) {
    let place = |point: &Point| (f64::from(point.x) * width as f64, f64::from(point.y) * height as f64);
    let corners: Vec<(f64, f64)> = corners.iter().map(place).collect();
    let edges = || corners.iter().zip(corners.iter().cycle().skip(1));
    let mut covered: Vec<Vec<(f64, f64)>> = vec![Vec::new(); height];
    for (row, covered) in covered.iter_mut().enumerate() {
        let (top, bottom) = (row as f64, row as f64 + 1.0);
        let mut crossings: Vec<(f64, i32)> = Vec::new();
        for ((x0, y0), (x1, y1)) in edges() {
            if y0.max(*y1) < top || y0.min(*y1) > bottom {
                continue;
            }
            // The part of this edge that lies in the row.
            let at = |y: f64| if y0 == y1 { *x0 } else { x0 + (x1 - x0) * (y - y0) / (y1 - y0) };
            let (a, b) =
                if y0 == y1 { (*x0, *x1) } else { (at(y0.clamp(top, bottom)), at(y1.clamp(top, bottom))) };
            covered.push((a.min(b), a.max(b)));
            let middle = top + 0.5;
            if (*y0 <= middle) != (*y1 <= middle) {
                crossings.push((at(middle), if y0 < y1 { 1 } else { -1 }));
            }
        }
        crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut winding = 0;
        for pair in crossings.windows(2) {
            winding += pair[0].1;
            if winding != 0 {
                covered.push((pair[0].0, pair[1].0));
            }
        }
    }
    for (row, covered) in covered.iter().enumerate() {
        for (from, to) in covered {
            let from = (from.floor() as usize).saturating_sub(1);
            let to = (to.ceil() as usize + 1).min(width);
            for row in row.saturating_sub(1)..(row + 2).min(height) {
                if let Some(row) = rows.get_mut(row) {
                    row.push((from, to));
                }
            }
        }
    }
}

/// The same pixels with nothing told twice.
fn spans(rows: &[Vec<(usize, usize)>]) -> impl Iterator<Item = Span> {
    rows.iter().enumerate().flat_map(|(row, parts)| {
        let mut parts = parts.clone();
        parts.sort_unstable();
        let mut joined: Vec<Span> = Vec::new();
        for (from, to) in parts.into_iter().filter(|(from, to)| from < to) {
            match joined.last_mut() {
                Some(last) if from <= last.to => last.to = last.to.max(to),
                _ => joined.push(Span { row, from, to }),
            }
        }
        joined
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polygon(corners: &[(f32, f32)]) -> Mask {
        Mask::Polygon(corners.iter().map(|(x, y)| Point { x: *x, y: *y }).collect())
    }

    fn cover(mask: Mask, width: u32, height: u32) -> Cover {
        Cover::new(&Masks::new(vec![mask]).unwrap(), width, height)
    }

    fn has(spans: &[Span], x: usize, y: usize) -> bool {
        spans.iter().any(|span| span.row == y && (span.from..span.to).contains(&x))
    }

    /// Whether a point is inside, by the angles under which it sees the edges.
    fn inside(corners: &[(f32, f32)], x: f64, y: f64) -> bool {
        let mut turned = 0.0;
        for at in 0..corners.len() {
            let (a, b) = (corners[at], corners[(at + 1) % corners.len()]);
            let (ax, ay) = (f64::from(a.0) - x, f64::from(a.1) - y);
            let (bx, by) = (f64::from(b.0) - x, f64::from(b.1) - y);
            turned += (ax * by - ay * bx).atan2(ax * bx + ay * by);
        }
        turned.abs() > 3.0
    }

    #[test]
    fn no_pixel_with_a_hidden_place_in_it_is_left_open() {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 40) as f32) / ((1_u64 << 24) as f32)
        };
        for round in 0..60 {
            let corners: Vec<(f32, f32)> = (0..3 + round % 8).map(|_| (random(), random())).collect();
            let (width, height) = (16 + (round as u32 * 7) % 90, 16 + (round as u32 * 5) % 60);
            let Ok(masks) = Masks::new(vec![polygon(&corners)]) else { continue };
            let cover = Cover::new(&masks, width, height);
            for y in 0..height as usize {
                for x in 0..width as usize {
                    let near = [0.05, 0.5, 0.95].iter().any(|dy| {
                        [0.05, 0.5, 0.95].iter().any(|dx| {
                            let (px, py) = (x as f64 + dx, y as f64 + dy);
                            inside(&corners, px / f64::from(width), py / f64::from(height))
                        })
                    });
                    if near {
                        assert!(has(cover.spans(true), x, y), "round {round}: {x},{y} of {width}x{height}");
                        assert!(has(cover.spans(false), x / 2, y / 2), "colour of {x},{y}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_rectangle_covers_itself_and_one_pixel_more() {
        let (from, to) = (Point { x: 0.25, y: 0.5 }, Point { x: 0.5, y: 1.0 });
        let cover = cover(Mask::Rectangle { from, to }, 64, 32);
        assert!(has(cover.spans(true), 15, 15) && has(cover.spans(true), 32, 31));
        assert!(
            !has(cover.spans(true), 13, 20)
                && !has(cover.spans(true), 40, 20)
                && !has(cover.spans(true), 20, 13)
        );
    }

    #[test]
    fn spans_stay_inside_pictures_of_any_size() {
        for (width, height) in [(1, 1), (2, 2), (17, 3), (641, 361)] {
            let all = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
            let cover = cover(polygon(&all), width, height);
            let covered: usize = cover.spans(true).iter().map(|span| span.to - span.from).sum();
            assert_eq!(covered, (width * height) as usize);
            let (half, rows) = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
            assert!(cover.spans(false).iter().all(|span| span.to <= half && span.row < rows));
        }
    }
}
