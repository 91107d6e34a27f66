//! The combination of several statistics of a map.

/// Ridge logistic regression; the intercept does not matter to a ranking and is not kept.
pub struct Logistic {
    /// One a column of the samples.
    pub weights: Vec<f64>,
}

impl Logistic {
    /// Gradient descent on standardised columns, both classes weighing the same; the ridge keeps the few labels from
    /// being learned by heart.
    pub fn fit<'a>(samples: impl Iterator<Item = (&'a [f64], bool)>) -> Logistic {
        const STEPS: usize = 500;
        const RATE: f64 = 0.3;
        const RIDGE: f64 = 0.05;
        let (rows, labels): (Vec<&[f64]>, Vec<bool>) = samples.unzip();
        let columns = rows.first().map_or(0, |r| r.len());
        let count = rows.len() as f64;
        let moments: Vec<(f64, f64)> = (0..columns)
            .map(|c| {
                let mean = rows.iter().map(|r| r[c]).sum::<f64>() / count;
                let variance = rows.iter().map(|r| (r[c] - mean).powi(2)).sum::<f64>() / count;
                (mean, variance.sqrt().max(1e-12))
            })
            .collect();
        let positives = labels.iter().filter(|&&l| l).count().max(1) as f64;
        let share = |l: bool| 0.5 / if l { positives } else { (count - positives).max(1.0) };
        let (mut weights, mut intercept) = (vec![0.0; columns], 0.0);
        for _ in 0..STEPS {
            let mut gradient: Vec<f64> = weights.iter().map(|w| RIDGE * w).collect();
            let mut slope = 0.0;
            for (row, &label) in rows.iter().zip(&labels) {
                let z: Vec<f64> = row.iter().zip(&moments).map(|(v, (m, d))| (v - m) / d).collect();
                let logit = intercept + z.iter().zip(&weights).map(|(z, w)| z * w).sum::<f64>();
                let error = (1.0 / (1.0 + (-logit).exp()) - f64::from(u8::from(label))) * share(label);
                slope += error;
                gradient.iter_mut().zip(&z).for_each(|(g, z)| *g += error * z);
            }
            intercept -= RATE * slope;
            weights.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= RATE * g);
        }
        Logistic { weights: weights.iter().zip(&moments).map(|(w, (_, d))| w / d).collect() }
    }

    pub fn score(&self, row: &[f64]) -> f64 {
        row.iter().zip(&self.weights).map(|(v, w)| v * w).sum()
    }
}
