//! Gradient clipping by the length of the *whole* gradient; burn's own clips every tensor by itself.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;

/// Scales `gradients` of `module` down to the length `limit`, if they are longer; 0 leaves them.
pub fn clip<M: Module>(gradients: GradientsParams, module: &M, limit: f64) -> GradientsParams {
    if limit == 0.0 {
        return gradients;
    }
    let mut length = Length { gradients: &gradients, squares: 0.0 };
    module.visit(&mut length);
    let length = length.squares.sqrt();
    if length <= limit {
        return gradients;
    }
    let mut scale = Scale { gradients, factor: limit / (length + 1e-6) };
    module.visit(&mut scale);
    scale.gradients
}

struct Length<'a> {
    gradients: &'a GradientsParams,
    squares: f64,
}

impl ModuleVisitor for Length<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.squares += f64::from(gradient.square().sum().into_scalar::<f32>());
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};

    fn length(gradients: &GradientsParams, module: &Linear) -> f64 {
        let mut length = Length { gradients, squares: 0.0 };
        module.visit(&mut length);
        length.squares.sqrt()
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
