//! A network that does not fit its manifest, or breaks the contract of its outputs, is refused before the first frame.

use ckaad_bundle::Bundle;
use ckaad_inspect::engine::Engine;
use ckaad_inspect::{InspectOptions, Inspector};
use ckaad_testing::demo_bundle;
use ckaad_testing::onnx::brightness;

const MAP: (&str, &[i64]) = ("anomaly_map", &[1, 1, 8, 12]);

#[test]
fn a_stride_that_is_not_the_networks_is_refused() {
    let mut bundle = Bundle::read(&demo_bundle()).unwrap();
    Inspector::new(&bundle, &InspectOptions::default()).unwrap();
    bundle.manifest.output_stride *= 2;
    let why = Inspector::new(&bundle, &InspectOptions::default()).err().unwrap().to_string();
    assert!(why.contains("output_stride"), "{why}");
}

#[test]
fn outputs_are_found_by_their_names_in_any_order() {
    let image: Vec<u8> = (0..32 * 48 * 3).map(|i| (i % 251) as u8).collect();
    let alone = Engine::load(&brightness(&[MAP]), 1).unwrap();
    let map = alone.run(&image).unwrap().swap_remove(0);
    assert_eq!((alone.has_image_score(), map.image_score, map.map.dim()), (false, None, (8, 12)));
    let mean = map.map.mean().unwrap();
    for shape in [&[1][..], &[1, 1], &[1, 1, 1, 1]] {
        let score = ("image_score", shape);
        for outputs in [[MAP, score], [score, MAP]] {
            let engine = Engine::load(&brightness(&outputs), 1).unwrap();
            assert!(engine.has_image_score());
            assert_eq!((engine.input_size(), engine.map_size()), ((48, 32), (12, 8)));
            let found = engine.run(&image).unwrap().swap_remove(0);
            assert_eq!(found.map, map.map);
            assert!((found.image_score.unwrap() - mean).abs() < 1e-5, "{:?} {mean}", found.image_score);
        }
    }
}

#[test]
fn other_outputs_are_refused() {
    for outputs in [
        &[("map", &[1, 1, 8, 12][..])][..],
        &[("image_score", &[1])],
        &[MAP, ("other", &[1, 1, 8, 12])],
        &[MAP, ("image_score", &[1]), ("other", &[1, 1, 8, 12])],
        &[("anomaly_map", &[1, 2, 8, 6])],
    ] {
        let why = Engine::load(&brightness(outputs), 1).err().unwrap().to_string();
        let sentence = "the model breaks the contract: the output anomaly_map [1,1,h,w], and image_score of one number \
                        a view or none, expected; found ";
        let found: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
        assert!(why.starts_with(sentence) && found.iter().all(|name| why.contains(name)), "{why}");
    }
    let why = Engine::load(&brightness(&[("anomaly_map", &[8, 12])]), 1).err().unwrap().to_string();
    assert!(why.contains("outputs f32 [1,C,h,w] expected"), "{why}");
}
