//! Which renditions an encoder makes of a source, by the rules that its peers know.

use std::fmt;

/// Renditions that one stream may have.
const RENDITIONS_MAX: usize = 32;
/// Longest side of a picture, in pixels.
const SIDE_MAX: u32 = 8_192;
/// Most pictures a second.
const RATE_MAX: u32 = 1_000;
/// Most kilobits a second.
const KBPS_MAX: u32 = 1_000_000;
/// Pictures a second of a source that does not say.
const USUAL_RATE: u32 = 30;
/// Bits for ten pixels, where nobody names a rate.
const BITS_FOR_TEN_PIXELS: u64 = 1;
/// Bounds of what follows from that.
const BITRATES: (u64, u64) = (200_000, 20_000_000);

/// A source's pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The integer part of the average rate; 0: it is not known.
    pub frame_rate: u32,
}

/// One size that somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
    frame_rate: Option<u32>,
    kbps: Option<u32>,
}

/// What somebody wants to be made: `ORIGINAL`, or `WxH[-FPS][~KBPS]`, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolutions {
    original: bool,
    sizes: Vec<Size>,
}

/// What is made of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// The source's own pictures.
    pub is_original: bool,
    /// Pixels, even.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
    /// Pictures a second; 0: as they come.
    pub frame_rate: u32,
    /// The most kilobits a second, where somebody says so.
    pub kbps: Option<u32>,
}

impl fmt::Display for Rendition {
    /// As folders and messages name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)?;
        if self.frame_rate > 0 {
            write!(f, "-{}", self.frame_rate)?;
        }
        self.kbps.map_or(Ok(()), |kbps| write!(f, "~{kbps}"))
    }
}

impl Rendition {
    /// Bits a second: those that were asked for, or what such pictures usually need.
    pub fn bitrate(&self) -> u32 {
        let rate = if self.frame_rate > 0 { self.frame_rate } else { USUAL_RATE };
        let pixels = u64::from(self.width).saturating_mul(self.height.into()).saturating_mul(rate.into());
        let usual = pixels.saturating_mul(BITS_FOR_TEN_PIXELS) / 10;
        let usual = usual.clamp(BITRATES.0, BITRATES.1);
        let asked = self.kbps.map(|kbps| kbps.saturating_mul(1_000));
        asked.unwrap_or_else(|| u32::try_from(usual).unwrap_or(u32::MAX))
    }
}

fn number(text: &str, max: u32) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && (1..=max).contains(number))
}

fn even(pixels: u32) -> u32 {
    pixels.saturating_add(1) & !1
}

/// `of` times `to` through `from`, rounded up to even.
fn fitted(of: u32, to: u32, from: u32) -> u32 {
    let product = u64::from(of).saturating_mul(to.into());
    let half = product.div_ceil(u64::from(from.max(1)).saturating_mul(2));
    u32::try_from(half.saturating_mul(2)).unwrap_or(u32::MAX)
}

impl Size {
    fn parse(text: &str) -> Option<Size> {
        let (text, kbps) = match text.trim().split_once('~') {
            Some((text, kbps)) => (text, Some(number(kbps.trim(), KBPS_MAX)?)),
            None => (text.trim(), None),
        };
        let (text, frame_rate) = match text.trim().split_once('-') {
            Some((text, rate)) => (text, Some(number(rate.trim(), RATE_MAX)?)),
            None => (text.trim(), None),
        };
        let (width, height) = text.split_once('x')?;
        Some(Size { width: number(width, SIDE_MAX)?, height: number(height, SIDE_MAX)?, frame_rate, kbps })
    }

    /// What is made of a source to fit this; it may be larger than the source.
    fn of(&self, source: Shape) -> Rendition {
        let (width, height) = (even(self.width), even(self.height));
        let source_rate = if source.frame_rate > 0 { source.frame_rate } else { USUAL_RATE };
        let (fitted_width, fitted_height) =
            (fitted(source.width, height, source.height), fitted(source.height, width, source.width));
        let keeps_width =
            if source.width > source.height { fitted_height <= height } else { fitted_width > width };
        let (width, height) = if keeps_width { (width, fitted_height) } else { (fitted_width, height) };
        let frame_rate = self.frame_rate.unwrap_or(source_rate).min(source_rate);
        Rendition { is_original: false, width, height, frame_rate, kbps: self.kbps }
    }
}

impl Resolutions {
    /// Reads a list; what makes no sense in it is left out, and a list without anything means the original.
    pub fn parse(text: &str) -> Resolutions {
        let entries = || text.split(',').map(str::trim);
        let original = entries().any(|entry| entry.eq_ignore_ascii_case("ORIGINAL"));
        let sizes: Vec<Size> = entries().filter_map(Size::parse).take(RENDITIONS_MAX).collect();
        Resolutions { original: original || sizes.is_empty(), sizes }
    }

    /// What is made of a source; at least one, none twice.
    pub fn of(&self, source: Shape) -> Vec<Rendition> {
        let original = Rendition {
            is_original: true,
            width: even(source.width),
            height: even(source.height),
            frame_rate: source.frame_rate,
            kbps: None,
        };
        let mut made: Vec<Rendition> = self.original.then_some(original).into_iter().collect();
        let mut smallest: Option<Rendition> = None;
        for rendition in self.sizes.iter().map(|size| size.of(source)) {
            if made.iter().any(|known| known.to_string() == rendition.to_string()) {
                continue;
            }
            let is_least = smallest.is_none_or(|least| {
                rendition.width <= least.width
                    && rendition.height <= least.height
                    && rendition.frame_rate <= least.frame_rate
            });
            if is_least {
                smallest = Some(rendition);
            }
            if rendition.width <= source.width && rendition.height <= source.height {
                made.push(rendition);
            }
        }
        // Somebody wants something, even if all of it is larger than the source.
        if made.is_empty() { smallest.into_iter().collect() } else { made }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: Shape = Shape { width: 1920, height: 1080, frame_rate: 25 };

    fn made(text: &str, source: Shape) -> Vec<String> {
        Resolutions::parse(text).of(source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn check_25_the_original_is_the_sources_size_at_its_rate_made_even() {
        assert_eq!(made("ORIGINAL", HD), ["1920x1080-25"]);
        assert_eq!(made("original", Shape { width: 641, height: 359, frame_rate: 29 }), ["642x360-29"]);
        assert_eq!(made("ORIGINAL", Shape { frame_rate: 0, ..HD }), ["1920x1080"]);
        assert!(Resolutions::parse("ORIGINAL").of(HD)[0].is_original);
    }

    #[test]
    fn check_25_a_list_without_sense_means_the_original() {
        for text in [
            "",
            "1280",
            "x720",
            "1280x",
            "0x720",
            "-1x720",
            "+1x2",
            "8193x8193",
            "1280x720-",
            "1280x720~x",
            "a,b",
        ] {
            assert_eq!(made(text, HD), ["1920x1080-25"], "{text}");
        }
        assert_eq!(made("nonsense, 640x360", HD), ["640x360-25"], "what makes sense is made");
    }

    #[test]
    fn check_25_the_shape_is_kept_by_fitting_and_rounding_up_to_even() {
        // Landscape: the width stays and the height follows, unless that were too high.
        assert_eq!(made("1280x720-30~2000", HD), ["1280x720-25~2000"]);
        assert_eq!(made("1280x1000", HD), ["1280x720-25"]);
        assert_eq!(made("1280x500", HD), ["890x500-25"], "888.9 made even");
        assert_eq!(made("854x480", HD), ["854x480-25"]);
        assert_eq!(made("641x361", HD), ["642x362-25"], "361.1, and the width was odd");
        // Portrait, and square: mirrored.
        let portrait = Shape { width: 1080, height: 1920, frame_rate: 25 };
        assert_eq!(made("1000x1280", portrait), ["720x1280-25"]);
        assert_eq!(made("500x1280", portrait), ["500x890-25"]);
        let square = Shape { width: 1000, height: 1000, frame_rate: 25 };
        assert_eq!(made("640x360", square), ["360x360-25"]);
        assert_eq!(made("360x640", square), ["360x360-25"]);
    }

    #[test]
    fn check_25_there_are_never_more_pictures_than_the_source_has() {
        assert_eq!(made("640x360-60", HD), ["640x360-25"]);
        assert_eq!(made("640x360-10", HD), ["640x360-10"]);
        assert_eq!(made("640x360", Shape { frame_rate: 0, ..HD }), ["640x360-30"], "as peers assume");
    }

    #[test]
    fn check_25_what_is_there_twice_or_larger_than_the_source_is_left_out() {
        assert_eq!(made("ORIGINAL,1920x1080,3840x2160,640x360,640x400", HD), ["1920x1080-25", "640x360-25"]);
        assert_eq!(
            made("1920x1080,1920x1080~900,1920x1080~900", HD),
            ["1920x1080-25", "1920x1080-25~900"],
            "another rate is another one"
        );
        assert_eq!(made("ORIGINAL,3840x2160", HD), ["1920x1080-25"]);
    }

    #[test]
    fn check_25_if_all_are_larger_the_smallest_is_made() {
        let small = Shape { width: 320, height: 180, frame_rate: 10 };
        assert_eq!(made("1920x1080,640x360,1280x720", small), ["640x360-10"]);
    }

    #[test]
    fn check_25_a_list_is_bounded() {
        let many: Vec<String> = (0..40).map(|n| format!("{}x{}", 100 + 2 * n, 1000)).collect();
        assert_eq!(made(&many.join(","), HD).len(), RENDITIONS_MAX);
    }

    #[test]
    fn rates_are_those_asked_for_or_follow_from_the_size() {
        let rate = |text: &str, source| Resolutions::parse(text).of(source)[0].bitrate();
        assert_eq!(rate("1280x720~1500", HD), 1_500_000);
        assert_eq!(rate("1280x720-30", Shape { frame_rate: 30, ..HD }), 2_764_800);
        assert_eq!(rate("16x16", HD), 200_000);
    }
}
