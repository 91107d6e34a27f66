//! A mask on the grid of a network's map.

use ndarray::{Array2, ArrayView2};

/// What a cell of a grid is to be learned as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// No pixel of it is marked.
    Normal,
    /// More than 5 % of it is marked.
    Anomalous,
    /// Something of it is marked, and not more than 5 %: neither.
    Ignored,
}

/// Share of a cell above which it is anomalous.
const SHARE: f64 = 0.05;
/// What sums of shares may be off by.
const ROUNDING: f64 = 1e-9;

/// The cells of a `grid` of rows and columns that is spread over `mask`, `[H,W]`, whichever of the two is finer. A pixel that
/// lies in several cells counts in each with what it has of it.
pub fn cells(mask: ArrayView2<bool>, grid: (usize, usize)) -> Array2<Cell> {
    let (rows, columns) = (spans(mask.nrows(), grid.0), spans(mask.ncols(), grid.1));
    Array2::from_shape_fn(grid, |(row, column)| {
        let mut share = 0.0;
        for (y, down) in &rows[row] {
            share +=
                down * columns[column].iter().filter(|(x, _)| mask[[*y, *x]]).map(|(_, across)| across).sum::<f64>();
        }
        match share {
            share if share <= ROUNDING => Cell::Normal,
            share if share > SHARE + ROUNDING => Cell::Anomalous,
            _ => Cell::Ignored,
        }
    })
}

/// Of each of `cells` along an axis of `pixels`: which pixels it touches, and what share of it each is.
fn spans(pixels: usize, cells: usize) -> Vec<Vec<(usize, f64)>> {
    let end = |cell: usize| (cell * pixels) as f64 / cells as f64;
    let span = |cell: usize| {
        let (from, to) = (end(cell), end(cell + 1));
        let share = |pixel: usize| (to.min(pixel as f64 + 1.0) - from.max(pixel as f64)) / (to - from);
        let touched = from as usize..(to.ceil() as usize).min(pixels);
        touched.map(|pixel| (pixel, share(pixel))).filter(|(_, share)| *share > 0.0).collect()
    };
    (0..cells).map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::Cell::{Anomalous, Ignored, Normal};
    use super::*;

    fn mask(rows: usize, columns: usize, marked: &[(usize, usize)]) -> Array2<bool> {
        Array2::from_shape_fn((rows, columns), |at| marked.contains(&at))
    }

    #[test]
    fn a_cell_is_anomalous_above_a_twentieth_and_ignored_up_to_it() {
        // Cells of 10 x 10 pixels: 6, 5, 1 and none of 100.
        let mut marked: Vec<_> = (0..6).map(|i| (i, 3)).collect();
        marked.extend((0..5).map(|i| (i, 13)));
        marked.push((19, 0));
        let found = cells(mask(20, 20, &marked).view(), (2, 2));
        assert_eq!(found, ndarray::array![[Anomalous, Ignored], [Ignored, Normal]]);
    }

    #[test]
    fn a_pixel_counts_in_each_cell_with_what_it_has_of_it() {
        // Cells of 1.5 pixels: the middle pixel is a third of both.
        assert_eq!(cells(mask(1, 3, &[(0, 1)]).view(), (1, 2)), ndarray::array![[Anomalous, Anomalous]]);
        assert_eq!(cells(mask(1, 3, &[(0, 0)]).view(), (1, 2)), ndarray::array![[Anomalous, Normal]]);
        // Of 100 rows in 3 cells the 34th is for a third in the first, 1 % of it, and else in the second, 2 % of that.
        let column = |rows: &[usize]| mask(100, 1, &rows.iter().map(|row| (*row, 0)).collect::<Vec<_>>());
        assert_eq!(cells(column(&[33]).view(), (3, 1)), ndarray::array![[Ignored], [Ignored], [Normal]]);
        assert_eq!(cells(column(&[33, 35, 36]).view(), (3, 1)), ndarray::array![[Ignored], [Anomalous], [Normal]]);
    }

    #[test]
    fn a_grid_may_be_finer_than_the_mask_or_have_no_cell() {
        let found = cells(mask(1, 2, &[(0, 1)]).view(), (2, 4));
        assert_eq!(
            found,
            ndarray::array![[Normal, Normal, Anomalous, Anomalous], [Normal, Normal, Anomalous, Anomalous]]
        );
        assert_eq!(cells(mask(0, 0, &[]).view(), (2, 1)), ndarray::array![[Normal], [Normal]]);
        assert_eq!(cells(mask(3, 3, &[(1, 1)]).view(), (0, 4)).dim(), (0, 4));
    }
}
