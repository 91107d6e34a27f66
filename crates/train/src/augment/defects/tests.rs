//! What painting promises, whatever is painted.

use super::*;
use image::Rgb;

/// Grained metal of varying light, `colour` or grey.
fn part(width: u32, height: u32, colour: bool) -> RgbImage {
    let mut rng = StdRng::seed_from_u64(u64::from(width) * 7 + u64::from(height));
    RgbImage::from_fn(width, height, |x, y| {
        let mark = if x % 37 == 0 || (x + y / 9) % 53 == 0 { -30.0 } else { 0.0 };
        let light = 110.0 + 40.0 * (x as f32 / 90.0).sin() + 20.0 * (y as f32 / 60.0).cos() + mark;
        let value = (light + rng.random_range(-8.0..8.0f32)).clamp(0.0, 255.0) as u8;
        Rgb(if colour { [value, value / 2 + 30, 200 - value / 2] } else { [value; 3] })
    })
}

/// The same on a black ground, as wide again on each side as the part.
fn on_ground() -> RgbImage {
    let (part, mut image) = (part(300, 300, false), RgbImage::from_pixel(900, 300, Rgb([4; 3])));
    image::imageops::replace(&mut image, &part, 300, 0);
    image
}

fn difference(a: &RgbImage, b: &RgbImage) -> Array2<u8> {
    let most = |y: usize, x: usize| {
        let (a, b) = (a.get_pixel(x as u32, y as u32).0, b.get_pixel(x as u32, y as u32).0);
        (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap_or(0)
    };
    Array2::from_shape_fn((a.height() as usize, a.width() as usize), |(y, x)| most(y, x))
}

/// Whether any of `mask` is at most `reach` pixels from a place along either axis.
fn near(mask: &Array2<bool>, (y, x): (usize, usize), reach: usize) -> bool {
    let around = |at: usize, whole: usize| at.saturating_sub(reach)..(at + reach + 1).min(whole);
    let (rows, columns) = mask.dim();
    around(y, rows).any(|y| around(x, columns).any(|x| mask[[y, x]]))
}

fn marked(painted: &Painted) -> usize {
    painted.mask.iter().filter(|is| **is).count()
}

const DEFECTS: [Change; 3] = [Change::Line, Change::Blob, Change::CutPaste];

#[test]
fn a_seed_paints_the_same_and_another_one_something_else() {
    let (image, other) = (part(300, 260, false), part(280, 320, false));
    for change in Change::ALL {
        let paint = |seed| paint(&image, Some(&other), change, seed);
        assert_eq!(paint(1), paint(1), "{change:?}");
        assert_ne!(paint(1).image, paint(2).image, "{change:?}");
        assert_ne!(paint(3).image, image, "{change:?}");
    }
}

#[test]
fn a_mask_holds_what_changed_up_to_its_soft_edge() {
    let (image, other) = (part(300, 260, true), part(280, 320, true));
    for change in DEFECTS {
        for seed in 0..20 {
            let painted = paint(&image, Some(&other), change, seed);
            assert!(marked(&painted) > 0, "{change:?} of seed {seed} left no mark");
            let difference = difference(&image, &painted.image);
            let changed = difference.mapv(|levels| levels >= 2);
            for (at, is) in painted.mask.indexed_iter() {
                if *is {
                    assert!(near(&changed, at, 2), "{change:?} of seed {seed}: nothing changed at {at:?}");
                } else if changed[at] {
                    assert!(near(&painted.mask, at, 3), "{change:?} of seed {seed}: {at:?} is far beside the mask");
                }
            }
        }
    }
}

#[test]
fn a_line_is_thin_and_4_to_40_levels_off_where_it_is_strongest() {
    // On plain grey a change is what was added.
    let image = RgbImage::from_pixel(500, 600, Rgb([128; 3]));
    let (mut lightest, mut darkest) = (0, 0);
    for seed in 0..60 {
        let painted = paint(&image, None, Change::Line, seed);
        let levels: Vec<i32> = painted.image.pixels().map(|p| i32::from(p.0[0]) - 128).collect();
        let (low, high) = (*levels.iter().min().unwrap(), *levels.iter().max().unwrap());
        assert!(low == 0 || high == 0, "seed {seed} is both lighter and darker");
        assert!((4..=40).contains(&(high - low)), "seed {seed}: {low} to {high}");
        (lightest, darkest) = (lightest.max(high), darkest.min(low));
        // 300 pixels and two branches of half of that, each up to 4 pixels and their soft sides.
        assert!((10..=600 * 7).contains(&marked(&painted)), "seed {seed} marks {} pixels", marked(&painted));
        let solid = painted.mask.windows((14, 14)).into_iter().any(|block| block.iter().all(|is| *is));
        assert!(!solid, "seed {seed} is no line");
    }
    assert!(lightest > 25 && darkest < -25, "{lightest} and {darkest}");
}

#[test]
fn blobs_and_pieces_have_their_share_of_the_image_and_stand_out() {
    let (image, other) = (part(400, 300, false), part(300, 300, false));
    for (change, most) in [(Change::Blob, 0.036), (Change::CutPaste, 0.022)] {
        let mut shares: Vec<f32> = (0..40)
            .map(|seed| {
                let painted = paint(&image, Some(&other), change, seed);
                assert!(painted.image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]), "grey stays grey");
                marked(&painted) as f32 / 120_000.0
            })
            .collect();
        shares.sort_by(f32::total_cmp);
        assert!(shares[0] > 0.0001 && shares[39] <= most, "{change:?}: {shares:?}");
        assert!(shares[39] > 4.0 * shares[0], "{change:?} is always as large: {shares:?}");
    }
}

#[test]
fn a_control_marks_nothing_and_changes_the_image_all_the_same() {
    let image = part(320, 300, false);
    for change in [Change::MovedEdge, Change::LightStep] {
        let mut changed = 0;
        for seed in 0..10 {
            let painted = paint(&image, None, change, seed);
            assert_eq!(marked(&painted), 0);
            changed += usize::from(painted.image != image);
        }
        assert!(changed >= 9, "{change:?} changed {changed} of 10 images");
    }
}

#[test]
fn a_moved_edge_leaves_the_brightness_of_its_place() {
    let image = part(320, 300, false);
    for seed in 0..20 {
        let painted = paint(&image, None, Change::MovedEdge, seed);
        let sums = image.pixels().zip(painted.image.pixels()).filter(|(was, is)| was != is);
        let (sum, pixels) =
            sums.fold((0, 0), |(sum, n), (was, is)| (sum + i64::from(is.0[0]) - i64::from(was.0[0]), n + 1));
        let mean = sum as f64 / f64::from(pixels.max(1));
        assert!(mean.abs() < 8.0, "seed {seed}: {mean} levels over {pixels} pixels");
    }
}

#[test]
fn at_least_half_of_a_defect_is_on_the_part() {
    let image = on_ground();
    for change in DEFECTS {
        for seed in 0..30 {
            let painted = paint(&image, Some(&image), change, seed);
            // The blocks of 7 pixels at the part's sides are part, too.
            let on = painted.mask.indexed_iter().filter(|((_, x), is)| **is && (294..602).contains(x)).count();
            assert!(on > 0 && 2 * on >= marked(&painted), "{change:?} of seed {seed}: {on} of {}", marked(&painted));
        }
    }
}

#[test]
fn no_image_is_too_small_and_small_ones_get_small_defects() {
    for (width, height) in [(0, 0), (1, 1), (1, 40), (16, 16), (3, 200), (33, 17)] {
        let (image, other) = (part(width, height, true), part(5, 5, true));
        for change in Change::ALL {
            for seed in 0..8 {
                let painted = paint(&image, Some(&other), change, seed);
                assert_eq!(painted.mask.dim(), (height as usize, width as usize));
                paint(&image, Some(&RgbImage::new(0, 0)), change, seed);
            }
        }
    }
    let image = RgbImage::from_pixel(50, 50, Rgb([128; 3]));
    for seed in 0..40 {
        // A fifth of 300 and of 4 pixels, with branches and soft sides.
        let marked = marked(&paint(&image, None, Change::Line, seed));
        assert!((1..=60 * 2 * 6).contains(&marked), "seed {seed} marks {marked} pixels");
    }
}

#[test]
fn half_of_the_defects_are_lines() {
    let mut rng = StdRng::seed_from_u64(1);
    let drawn: Vec<Change> = (0..4000).map(|_| Change::draw_defect(&mut rng)).collect();
    let share = |change: Change| drawn.iter().filter(|d| **d == change).count() as f32 / 4000.0;
    assert!((share(Change::Line) - 0.5).abs() < 0.03 && (share(Change::Blob) - 0.25).abs() < 0.03);
    assert!(drawn.iter().all(|change| change.is_defect()));
    assert!((0..50).all(|_| !Change::draw_control(&mut rng).is_defect()));
}

/// A part with a dark scratch of 2x40 pixels, in two pieces that are 6 pixels apart, and a bright spot of 6x6.
fn labelled() -> (RgbImage, Array2<bool>) {
    let mut image = part(300, 260, false);
    let mut mask = Array2::from_elem((260, 300), false);
    let mut mark = |x: u32, y: u32, levels: i16| {
        let value = (i16::from(image.get_pixel(x, y).0[0]) + levels).clamp(0, 255) as u8;
        image.put_pixel(x, y, Rgb([value; 3]));
        mask[[y as usize, x as usize]] = true;
    };
    for x in (80..98).chain(104..120) {
        (120..122).for_each(|y| mark(x, y, -60));
    }
    (200..206).for_each(|x| (60..66).for_each(|y| mark(x, y, 70)));
    (image, mask)
}

#[test]
fn a_labelled_defect_is_cut_out_whole_and_what_fills_its_image_is_not() {
    let (image, mask) = labelled();
    let found: Vec<String> = snippets(&image, &mask).iter().map(|snippet| format!("{snippet:?}")).collect();
    // Eight pixels more on every side.
    assert_eq!(found, ["Snippet(22x22)", "Snippet(56x18)"]);
    assert!(snippets(&image, &Array2::from_elem((260, 300), true)).is_empty());
    assert!(snippets(&image, &Array2::from_elem((260, 300), false)).is_empty());
    assert!(snippets(&image, &Array2::from_elem((10, 10), true)).is_empty(), "the mask of another image");
}

#[test]
fn a_snippet_lies_elsewhere_as_it_was() {
    let (image, mask) = labelled();
    let target = part(280, 320, false);
    let (spot, scratch) = match &snippets(&image, &mask)[..] {
        [spot, scratch] => (spot.clone(), scratch.clone()),
        other => panic!("{other:?}"),
    };
    for (snippet, pixels, levels) in [(&spot, 36, 70.0), (&scratch, 68, -60.0)] {
        for seed in 0..20 {
            let painted = paint_snippet(&target, snippet, seed);
            assert_eq!(painted, paint_snippet(&target, snippet, seed));
            let marked: Vec<(usize, usize)> =
                painted.mask.indexed_iter().filter(|(_, is)| **is).map(|(at, _)| at).collect();
            assert!((marked.len() as i32 - pixels).abs() <= pixels / 5, "{} of {pixels}, seed {seed}", marked.len());
            for ((y, x), changed) in difference(&target, &painted.image).indexed_iter().filter(|(_, d)| **d > 0) {
                assert!(near(&painted.mask, (y, x), 6), "{changed} levels at {x} {y}, far from the mask");
            }
            let of = |image: &RgbImage| {
                let sum: f32 = marked.iter().map(|(y, x)| f32::from(image.get_pixel(*x as u32, *y as u32).0[0])).sum();
                sum / marked.len() as f32
            };
            // It stands out from what is there, whose light varies by some 30 levels within a part, as it did: up to a fifth more or less.
            let found = of(&painted.image) - of(&target);
            assert!((found - levels).abs() < 45.0, "{found} in place of {levels}, seed {seed}");
        }
    }
    let places: Vec<_> = (0..5).map(|seed| paint_snippet(&target, &spot, seed).mask).collect();
    assert!(places.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn a_snippet_lies_on_the_part() {
    let (image, mask) = labelled();
    let (ground, spot) = (on_ground(), &snippets(&image, &mask)[0]);
    for seed in 0..20 {
        let painted = paint_snippet(&ground, spot, seed);
        let on = painted.mask.indexed_iter().filter(|((_, x), is)| **is && (295..605).contains(x)).count();
        assert!(marked(&painted) > 0 && 2 * on >= marked(&painted), "{on} of {} on the part", marked(&painted));
    }
}
