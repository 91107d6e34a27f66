//! One definition of a quantile for both programs.

use ndarray::NdFloat;

/// The value below which the share `share` (0 to 1) of `sorted` lies, linear between the two values next to that place
/// (Hyndman and Fan's type 7): 0.5 is the median, 0 the smallest, 1 the largest. `sorted` ascends; `None` where it is
/// empty.
pub fn quantile<F: NdFloat>(sorted: &[F], share: F) -> Option<F> {
    let last = sorted.len().checked_sub(1)?;
    let at = share * F::from(last)?;
    let low = at.to_usize()?.min(last);
    let (below, above) = (sorted[low], sorted[(low + 1).min(last)]);
    Some(below + (above - below) * (at - F::from(low)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_between_the_two_values_next_to_its_place() {
        let values = [1.0, 2.0, 4.0, 8.0];
        let at = |share: f64| quantile(&values, share).unwrap();
        assert_eq!([at(0.0), at(1.0 / 3.0), at(0.5), at(0.75), at(1.0)], [1.0, 2.0, 3.0, 5.0, 8.0]);
        assert_eq!(quantile(&[3.0f32], 0.99), Some(3.0));
        assert_eq!(quantile::<f64>(&[], 0.5), None);
    }
}
