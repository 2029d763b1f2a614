//! Privacy masks: parts of a picture that nobody may see.
//!
//! A camera's stream may pass as it is only with an [`Unmasked`], and that exists only for a set without masks: whoever
//! decides what happens to a picture must have looked at its masks first.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The most masks of one mountpoint.
pub const MASKS_MAX: usize = 32;
/// The most corners of a polygon.
pub const CORNERS_MAX: usize = 64;

/// A place in a picture, as fractions of its width and height: 0, 0 is the top left, 1, 1 the bottom right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// From the left, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub x: f32,
    /// From the top, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub y: f32,
}

/// One part of a picture that is painted black.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mask {
    /// The part between two corners.
    Rectangle {
        /// Top left.
        from: Point,
        /// Bottom right.
        to: Point,
    },
    /// The inside of a closed line through 3 to 64 corners; where it crosses itself, all that it encloses.
    Polygon(Vec<Point>),
}

/// Why a mask cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MaskError {
    /// Too many of them.
    #[error("{got} masks, at most {MASKS_MAX}: join neighbours into one")]
    TooMany {
        /// How many.
        got: usize,
    },
    /// A coordinate outside the picture.
    #[error(
        "mask {mask}: coordinate {got} is outside the picture, give fractions of its width and height, 0 to 1"
    )]
    Outside {
        /// Which mask, from 0.
        mask: usize,
        /// The coordinate.
        got: f32,
    },
    /// A polygon with too few or too many corners.
    #[error("mask {mask}: a polygon of {got} corners, give 3 to {CORNERS_MAX}")]
    Corners {
        /// Which mask, from 0.
        mask: usize,
        /// How many corners.
        got: usize,
    },
    /// It would hide nothing.
    #[error(
        "mask {mask} hides nothing: its corners lie on one line, or `from` is not above and left of `to`"
    )]
    Empty {
        /// Which mask, from 0.
        mask: usize,
    },
}

/// All masks of one mountpoint, checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Masks(Vec<Mask>);

impl Masks {
    /// Of a picture that is no camera's (a test picture, a trial of an encoder).
    pub const fn none() -> Masks {
        Masks(Vec::new())
    }

    /// Takes them if each can be drawn.
    pub fn new(masks: Vec<Mask>) -> Result<Masks, MaskError> {
        if masks.len() > MASKS_MAX {
            return Err(MaskError::TooMany { got: masks.len() });
        }
        for (at, mask) in masks.iter().enumerate() {
            check(at, mask)?;
        }
        Ok(Masks(masks))
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Mask> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The proof that the stream may pass as it is; `None` while there is a mask.
    pub fn unmasked(&self) -> Option<Unmasked> {
        self.0.is_empty().then_some(Unmasked(()))
    }
}

impl<'de> Deserialize<'de> for Masks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Masks::new(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The proof that a picture has no masks; only [`Masks::unmasked`] gives it. (In a worker it comes with its job, which
/// the gateway wrote.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Unmasked(());

fn check(at: usize, mask: &Mask) -> Result<(), MaskError> {
    let corners = match mask {
        Mask::Rectangle { from, to } => {
            inside(at, &[*from, *to])?;
            return if from.x < to.x && from.y < to.y { Ok(()) } else { Err(MaskError::Empty { mask: at }) };
        }
        Mask::Polygon(corners) => corners,
    };
    if !(3..=CORNERS_MAX).contains(&corners.len()) {
        return Err(MaskError::Corners { mask: at, got: corners.len() });
    }
    inside(at, corners)?;
    let first = corners.first().copied().unwrap_or(Point { x: 0.0, y: 0.0 });
    // Seen from the first corner: the area of each triangle with two others. All zero: one line.
    let has_area = corners.iter().enumerate().any(|(at, a)| {
        corners.iter().skip(at).any(|b| {
            let area = (a.x - first.x) * (b.y - first.y) - (b.x - first.x) * (a.y - first.y);
            area.abs() > 1e-6
        })
    });
    if has_area { Ok(()) } else { Err(MaskError::Empty { mask: at }) }
}

fn inside(at: usize, points: &[Point]) -> Result<(), MaskError> {
    let mut all = points.iter().flat_map(|point| [point.x, point.y]);
    // A number that is none is in no range.
    match all.find(|got| !(0.0..=1.0).contains(got)) {
        Some(got) => Err(MaskError::Outside { mask: at, got }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Masks, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn polygon(corners: &[(f32, f32)]) -> Mask {
        Mask::Polygon(corners.iter().map(|(x, y)| Point { x: *x, y: *y }).collect())
    }

    #[test]
    fn only_a_set_without_masks_proves_that_a_stream_may_pass() {
        assert!(Masks::none().unmasked().is_some());
        let one = read(r#"[{"rectangle": {"from": {"x": 0, "y": 0}, "to": {"x": 0.5, "y": 1}}}]"#).unwrap();
        assert_eq!((one.unmasked(), one.len()), (None, 1));
    }

    #[test]
    fn masks_survive_json() {
        let json = r#"[{"polygon":[{"x":0.0,"y":0.0},{"x":1.0,"y":0.0},{"x":0.5,"y":0.75}]}]"#;
        assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_with_its_place() {
        let fine = polygon(&[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]);
        let error = |mask: Mask| Masks::new(vec![fine.clone(), mask]).unwrap_err();
        assert_eq!(error(polygon(&[(0.0, 0.0), (1.0, 1.0)])), MaskError::Corners { mask: 1, got: 2 });
        let circle: Vec<(f32, f32)> = (0..65_u8).map(|n| (f32::from(n) / 100.0, f32::from(n % 2))).collect();
        assert_eq!(error(polygon(&circle)), MaskError::Corners { mask: 1, got: 65 });
        assert!(Masks::new(vec![polygon(&circle[..64])]).is_ok());
        assert_eq!(error(polygon(&[(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])), MaskError::Empty { mask: 1 });
        assert_eq!(
            error(polygon(&[(0.0, 0.0), (1.5, 0.0), (0.0, 1.0)])),
            MaskError::Outside { mask: 1, got: 1.5 }
        );
        assert!(matches!(
            error(polygon(&[(0.0, 0.0), (f32::NAN, 0.0), (0.0, 1.0)])),
            MaskError::Outside { .. }
        ));
        let (from, to) = (Point { x: 0.5, y: 0.5 }, Point { x: 0.5, y: 0.9 });
        assert_eq!(error(Mask::Rectangle { from, to }), MaskError::Empty { mask: 1 });
    }

    #[test]
    fn more_masks_than_allowed_are_refused() {
        let mask = polygon(&[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]);
        assert!(Masks::new(vec![mask.clone(); MASKS_MAX]).is_ok());
        assert_eq!(Masks::new(vec![mask; MASKS_MAX + 1]), Err(MaskError::TooMany { got: MASKS_MAX + 1 }));
    }
}
