//! Where an object lies in an image, as COCO's instances files say it, and the mask that this gives.

use super::each::Each;
use super::polygon;
use image::{GrayImage, Luma};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Beyond this a coordinate is no pixel of any image that is read here.
const LARGEST: f64 = 100_000.0;
/// Corners of one polygon; the sets' own have some thousands at most.
const MAX_CORNERS: usize = 10_000;
/// Polygons of one object.
const MAX_PARTS: usize = 10_000;
/// Runs of one object.
const MAX_RUNS: usize = 4_000_000;

/// Objects of one image; its mask is their union.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outlines {
    /// The file that says it.
    pub file: PathBuf,
    /// Which image it is, as that file names it.
    image: String,
    /// Width and height of the image.
    size: (u32, u32),
    /// Corners (x, y), whole pixels.
    polygons: Vec<Vec<(i32, i32)>>,
    /// Lengths of runs of pixels that are outside and inside in turns, column by column.
    runs: Vec<Vec<u32>>,
}

/// One object's outline. It is read up to its bounds: nothing is kept of a list that goes beyond them.
pub enum Segmentation {
    /// Parts, each x and y in turns.
    Polygons(Vec<Vec<f64>>),
    /// Runs.
    Runs {
        /// Height and width of the image.
        size: [u32; 2],
        /// Of pixels outside and inside in turns, column by column.
        counts: RunLengths,
    },
}

/// Lengths of runs.
pub enum RunLengths {
    /// As numbers.
    Plain(Vec<u32>),
    /// In pycocotools' text, see [`unpack`].
    Packed(String),
}

impl Outlines {
    /// No object in an image of this name, width and height.
    pub fn new(file: PathBuf, image: &str, size: (u32, u32)) -> Outlines {
        Outlines { file, image: image.to_owned(), size, polygons: vec![], runs: vec![] }
    }

    /// As an error's sentence names it.
    pub fn told(&self) -> PathBuf {
        format!("of {} in {}", self.image, self.file.display()).into()
    }

    /// Whether it has no object.
    pub fn is_empty(&self) -> bool {
        self.polygons.is_empty() && self.runs.is_empty()
    }

    /// Adds an object.
    ///
    /// # Errors
    /// A sentence, where it cannot be one of this image.
    pub fn add(&mut self, object: Segmentation) -> Result<(), String> {
        match object {
            Segmentation::Polygons(parts) => {
                for part in parts {
                    self.polygons.push(corners(&part)?);
                }
            }
            Segmentation::Runs { size: [height, width], counts } => {
                if (width, height) != self.size {
                    let (w, h) = self.size;
                    return Err(format!("its runs are of an image of {width}x{height} pixels, the image has {w}x{h}"));
                }
                let runs = match counts {
                    RunLengths::Plain(runs) => runs,
                    RunLengths::Packed(text) => unpack(&text)?,
                };
                let pixels = u64::from(width) * u64::from(height);
                let all: u64 = runs.iter().map(|&r| u64::from(r)).sum();
                if pixels != all {
                    return Err(format!("its runs have {all} pixels, the image {pixels}"));
                }
                self.runs.push(runs);
            }
        }
        Ok(())
    }

    /// The mask `[H,W]`: 255 inside an object, the pixels of its outline included, else 0. Inside one polygon every second crossing counts, between
    /// polygons all of them do.
    pub fn draw(&self) -> GrayImage {
        let mut mask = GrayImage::new(self.size.0, self.size.1);
        self.polygons.iter().for_each(|corners| polygon::fill(&mut mask, corners));
        let height = self.size.1 as usize;
        for runs in &self.runs {
            let mut at = 0;
            for (i, &run) in runs.iter().enumerate() {
                let end = at + run as usize;
                if i % 2 == 1 {
                    (at..end).for_each(|at| mask[((at / height) as u32, (at % height) as u32)] = Luma([255]));
                }
                at = end;
            }
        }
        mask
    }
}

/// A list of at most `N` elements.
struct AtMost<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut elements = vec![];
        let each = Each::new(|element| {
            if elements.len() == N {
                return Err(format!("invalid length {}, expected a list of up to {N}", N + 1));
            }
            elements.push(element);
            Ok(())
        });
        each.deserialize(deserializer)?;
        Ok(AtMost(elements))
    }
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Segmentation;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("polygons, or runs with size and counts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Segmentation, A::Error> {
                type Parts = AtMost<AtMost<f64, { 2 * MAX_CORNERS }>, MAX_PARTS>;
                let parts = Parts::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(Segmentation::Polygons(parts.0.into_iter().map(|part| part.0).collect()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Segmentation, A::Error> {
                #[derive(Deserialize)]
                struct Runs {
                    size: [u32; 2],
                    counts: RunLengths,
                }
                let Runs { size, counts } = Runs::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Segmentation::Runs { size, counts })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for RunLengths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RunLengths;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("lengths of runs, as a list or packed")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RunLengths, A::Error> {
                let runs = AtMost::<u32, MAX_RUNS>::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(RunLengths::Plain(runs.0))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RunLengths, E> {
                Ok(RunLengths::Packed(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn corners(part: &[f64]) -> Result<Vec<(i32, i32)>, String> {
    if part.is_empty() || !part.len().is_multiple_of(2) {
        return Err(format!("a polygon has {} numbers; x and y of each corner expected", part.len()));
    }
    if let Some(far) = part.iter().find(|v| v.abs() > LARGEST) {
        return Err(format!("a corner lies at {far}; up to {LARGEST} expected"));
    }
    // Cut off, as the set's makers did it.
    Ok(part.chunks_exact(2).map(|corner| (corner[0] as i32, corner[1] as i32)).collect())
}

/// Numbers from pycocotools' text: 5 bits a character from `0` on, the lowest first; 32 says that more follow, 16 in the last that the number is
/// negative. From the fourth on a number is the difference to the last but one.
fn unpack(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || "its runs are no packed text of pycocotools".to_owned();
    let (mut runs, mut number, mut shift) = (Vec::<i64>::new(), 0i64, 0);
    for byte in text.bytes() {
        let bits = byte.checked_sub(48).filter(|&bits| bits < 64 && shift <= 35).ok_or_else(wrong)?;
        number |= i64::from(bits & 31) << shift;
        shift += 5;
        if bits & 32 != 0 {
            continue;
        }
        if bits & 16 != 0 {
            number |= -1 << shift;
        }
        if runs.len() > 2 {
            number += runs[runs.len() - 2];
        }
        runs.push(u32::try_from(number).map_err(|_| wrong())?.into());
        (number, shift) = (0, 0);
    }
    if shift != 0 {
        return Err(wrong());
    }
    // Each came from a u32.
    Ok(runs.into_iter().map(|run| run as u32).collect())
}
