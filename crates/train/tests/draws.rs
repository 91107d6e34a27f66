//! Whatever is random follows from the seed. A binary of its own: what is drawn is drawn from one sequence a process.

use burn::nn::LinearConfig;
use burn::tensor::Distribution;
use ckaad_train::device::{cpu, drawn, random, seed};

#[test]
fn weights_and_noise_follow_from_the_seed() {
    let draw = || {
        seed(7);
        let module = drawn(&cpu(), |device| LinearConfig::new(5, 3).init(device));
        let noise = random([4], Distribution::Normal(0.0, 1.0), &cpu());
        let values = |data: burn::tensor::TensorData| data.convert::<f32>().try_into_vec::<f32>().unwrap();
        // Weights are looked at behind the noise: they were drawn before it.
        (values(noise.into_data()), values(module.weight.val().into_data()))
    };
    let first = draw();
    assert_eq!(first, draw());
    assert!(first.0.iter().chain(&first.1).all(|value| *value != 0.0), "{first:?}");
}
