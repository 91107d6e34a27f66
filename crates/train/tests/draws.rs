//! Whatever is random follows from the seed. A binary of its own: what is drawn is drawn from one sequence a process.

use burn::nn::LinearConfig;
use burn::tensor::Distribution;
use ckaad_train::device::{cpu, drawn, random, seed};

#[test]
fn weights_and_noise_follow_from_the_seed() {
    let draw = |with_noise: bool| -> (Vec<f32>, Vec<f32>) {
        seed(7);
        let module = drawn(&cpu(), |device| LinearConfig::new(5, 3).init(device));
        let noise = with_noise.then(|| random([4], Distribution::Normal(0.0, 1.0), &cpu()).into_data());
        let values = |data: burn::tensor::TensorData| data.convert::<f32>().try_into_vec::<f32>().unwrap();
        (noise.map(values).unwrap_or_default(), values(module.weight.val().into_data()))
    };
    let first = draw(true);
    assert_eq!(first, draw(true));
    assert!(first.0.iter().chain(&first.1).all(|value| *value != 0.0), "{first:?}");
    // burn draws a weight when it is first looked at, which is behind the noise here.
    assert_eq!(draw(false).1, first.1);
}
