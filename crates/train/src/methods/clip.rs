//! Gradient clipping by the length of the *whole* gradient; burn's own clips every tensor by itself.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;

/// Scales `gradients` of `module` down to the length `limit`, if they are longer; 0 leaves them.
pub fn clip<M: Module>(gradients: GradientsParams, module: &M, limit: f64) -> GradientsParams {
    if limit == 0.0 {
        return gradients;
    }
    let mut squares = Squares { gradients: &gradients, sum: None };
    module.visit(&mut squares);
    let Some(squares) = squares.sum else { return gradients };
    // On the device: to compare here, a GPU would have to be waited for. Multiplied by 1 a gradient stays as it is.
    let factor = squares.sqrt().add_scalar(1e-6).recip().mul_scalar(limit).clamp_max(1.0);
    let mut scale = Scale { gradients, factor };
    module.visit(&mut scale);
    scale.gradients
}

/// The sum of the squares of all gradients.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let own = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + own,
                None => own,
            });
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor.clone().reshape([1; D]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};

    fn length(gradients: &GradientsParams, module: &Linear) -> f64 {
        let mut squares = Squares { gradients, sum: None };
        module.visit(&mut squares);
        f64::from(squares.sum.unwrap().sqrt().into_scalar::<f32>())
    }

    #[test]
    fn all_tensors_together_get_the_length_that_is_asked_for() {
        let device = Device::flex().autodiff();
        let module = LinearConfig::new(3, 2).init(&device);
        let x = Tensor::<2>::ones([4, 3], &device) * 10.0;
        let gradients = || GradientsParams::from_grads(module.forward(x.clone()).sum().backward(), &module);
        let whole = length(&gradients(), &module);
        assert!(whole > 1.0);
        assert!((length(&clip(gradients(), &module, 1.0), &module) - 1.0).abs() < 1e-4);
        assert!((length(&clip(gradients(), &module, 2.0 * whole), &module) - whole).abs() < 1e-9);
        assert!((length(&clip(gradients(), &module, 0.0), &module) - whole).abs() < 1e-9);
    }
}
