//! How good scores and maps are. Every curve is exact: all thresholds, ties taken together.

/// One scored item of a weighted ROC: its share of the negatives' and of the positives' mass.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub score: f32,
    pub negative: f32,
    pub positive: f32,
}

/// Points `(x, y)` of a weighted ROC from (0, 0) to (1, 1): negative mass and positive mass at or above each threshold.
/// `None` when one of the masses is zero.
pub fn roc(mut items: Vec<Item>) -> Option<Vec<(f64, f64)>> {
    let total = |mass: fn(&Item) -> f32| items.iter().map(|i| f64::from(mass(i))).sum::<f64>();
    let (negatives, positives) = (total(|i| i.negative), total(|i| i.positive));
    if negatives == 0.0 || positives == 0.0 {
        return None;
    }
    items.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let (mut x, mut y) = (0.0, 0.0);
    let mut points = vec![(0.0, 0.0)];
    for (i, item) in items.iter().enumerate() {
        x += f64::from(item.negative);
        y += f64::from(item.positive);
        if items.get(i + 1).is_none_or(|next| next.score != item.score) {
            points.push((x / negatives, y / positives));
        }
    }
    Some(points)
}

/// Area under `points` up to `x = limit`, as a share of `limit`.
pub fn area(points: &[(f64, f64)], limit: f64) -> f64 {
    let mut sum = 0.0;
    for pair in points.windows(2) {
        let ((x0, y0), (mut x1, mut y1)) = (pair[0], pair[1]);
        if x0 >= limit {
            break;
        }
        if x1 > limit {
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0);
            x1 = limit;
        }
        sum += (x1 - x0) * (y0 + y1) / 2.0;
    }
    sum / limit
}

fn items(scores: &[f32], anomalous: &[bool]) -> Vec<Item> {
    let item = |(&score, &a): (&f32, &bool)| Item { score, negative: f32::from(!a), positive: f32::from(a) };
    scores.iter().zip(anomalous).map(item).collect()
}

/// Area under the ROC; `None` when a class is empty.
pub fn auroc(scores: &[f32], anomalous: &[bool]) -> Option<f64> {
    Some(area(&roc(items(scores, anomalous))?, 1.0))
}

/// Average precision as scikit-learn defines it: `Σ (R_n - R_{n-1}) P_n` over distinct thresholds.
pub fn average_precision(scores: &[f32], anomalous: &[bool]) -> Option<f64> {
    let steps = precision_recall(scores, anomalous)?;
    let mut last_recall = 0.0;
    let mut sum = 0.0;
    for (precision, recall, _) in steps {
        sum += (recall - last_recall) * precision;
        last_recall = recall;
    }
    Some(sum)
}

/// The largest F1 over all thresholds, and that threshold.
pub fn f1_max(scores: &[f32], anomalous: &[bool]) -> Option<(f64, f32)> {
    let steps = precision_recall(scores, anomalous)?;
    let f1 = |(p, r, t): (f64, f64, f32)| (if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 }, t);
    steps.into_iter().map(f1).reduce(|best, next| if next.0 > best.0 { next } else { best })
}

/// (precision, recall, threshold) at every distinct score, the highest first.
fn precision_recall(scores: &[f32], anomalous: &[bool]) -> Option<Vec<(f64, f64, f32)>> {
    let mut sorted: Vec<(f32, bool)> = scores.iter().copied().zip(anomalous.iter().copied()).collect();
    let positives = sorted.iter().filter(|s| s.1).count() as f64;
    if positives == 0.0 {
        return None;
    }
    sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut steps) = (0.0, vec![]);
    for (i, (score, positive)) in sorted.iter().enumerate() {
        hits += f64::from(u8::from(*positive));
        if sorted.get(i + 1).is_none_or(|next| next.0 != *score) {
            steps.push((hits / (i + 1) as f64, hits / positives, *score));
        }
    }
    Some(steps)
}

/// Pixels of a whole test set. Holds 8 bytes a pixel.
#[derive(Default)]
pub struct Pixels {
    scores: Vec<f32>,
    /// 0 is a normal pixel, else 1 + the index of the pixel's region.
    regions: Vec<u32>,
    region_sizes: Vec<u32>,
}

impl Pixels {
    /// Adds one image: its smoothed map, and its mask (`None`: all normal), both `[height,width]`.
    pub fn add(&mut self, map: &[f32], width: usize, mask: Option<&[bool]>) {
        self.scores.extend_from_slice(map);
        let Some(mask) = mask else {
            self.regions.extend(std::iter::repeat_n(0, map.len()));
            return;
        };
        let height = map.len() / width;
        let binary = image::GrayImage::from_fn(width as u32, height as u32, |x, y| {
            image::Luma([u8::from(mask[y as usize * width + x as usize]) * 255])
        });
        let eight = imageproc::region_labelling::Connectivity::Eight;
        let labels = imageproc::region_labelling::connected_components(&binary, eight, image::Luma([0]));
        let first = self.region_sizes.len() as u32;
        for image::Luma([label]) in labels.pixels() {
            let region = if *label == 0 { 0 } else { first + label };
            self.regions.push(region);
            if region > 0 {
                let index = region as usize - 1;
                self.region_sizes.resize(self.region_sizes.len().max(index + 1), 0);
                self.region_sizes[index] += 1;
            }
        }
    }

    pub fn auroc(&self) -> Option<f64> {
        Some(area(&roc(self.items(|_| 1.0))?, 1.0))
    }

    pub fn average_precision(&self) -> Option<f64> {
        let anomalous: Vec<bool> = self.regions.iter().map(|&r| r > 0).collect();
        average_precision(&self.scores, &anomalous)
    }

    /// Area under the per-region overlap against the false-positive rate, up to `limit`, rescaled to 0..1 (Bergmann et al. 2021).
    /// The mean overlap of all regions is a weighted true-positive rate: each region's pixels share one mass.
    pub fn aupro(&self, limit: f64) -> Option<f64> {
        Some(area(&roc(self.items(|region| 1.0 / self.region_sizes[region as usize - 1] as f32))?, limit))
    }

    fn items(&self, weight: impl Fn(u32) -> f32) -> Vec<Item> {
        let item = |(&score, &region): (&f32, &u32)| match region {
            0 => Item { score, negative: 1.0, positive: 0.0 },
            region => Item { score, negative: 0.0, positive: weight(region) },
        };
        self.scores.iter().zip(&self.regions).map(item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 6] = [0.1, 0.4, 0.35, 0.8, 0.8, 0.2];
    const LABELS: [bool; 6] = [false, false, true, true, false, true];

    #[test]
    fn image_metrics_equal_scikit_learns() {
        // sklearn.metrics on the same six values: roc_auc_score, average_precision_score, max of precision_recall_curve.
        assert!((auroc(&SCORES, &LABELS).unwrap() - 0.5).abs() < 1e-6);
        assert!((average_precision(&SCORES, &LABELS).unwrap() - 0.533_333_333).abs() < 1e-6);
        let (f1, threshold) = f1_max(&SCORES, &LABELS).unwrap();
        assert!((f1 - 0.75).abs() < 1e-6 && threshold == 0.2, "{f1} {threshold}");
    }

    #[test]
    fn a_missing_class_has_no_curve() {
        assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(average_precision(&[1.0], &[false]), None);
    }

    #[test]
    fn aupro_weighs_regions_not_pixels() {
        let mut pixels = Pixels::default();
        // Two regions, of 1 and of 4 pixels; the small one is found first, the large one only after half of the normal pixels.
        let mask = [true, false, false, false, false, true, true, true, true, false];
        let map = [0.9, 0.8, 0.7, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.1];
        pixels.add(&map, 10, Some(&mask));
        // Negatives: 0.8, 0.7 above the large region, three at 0.1 below: the overlap is 0.5 up to FPR 0.4.
        assert!((pixels.aupro(0.3).unwrap() - 0.5).abs() < 1e-6);
        assert!((pixels.aupro(0.4).unwrap() - 0.5).abs() < 1e-6);
        assert!((pixels.auroc().unwrap() - (0.4 * 0.2 + 0.6)).abs() < 1e-6);
    }
}
