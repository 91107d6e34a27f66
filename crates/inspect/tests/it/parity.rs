//! The engine against ONNX Runtime, on the very file that is shipped. Needs a Python, as
//! [`ckaad_testing::onnx_runtime`] does.

use ckaad_testing::demo_bundle;
use ckaad_testing::onnx_runtime::difference_to_onnx_runtime;

#[test]
fn the_shipped_int8_bundle_agrees_with_onnx_runtime_within_one_percent() {
    if let Some((worst, range)) = difference_to_onnx_runtime(&demo_bundle()) {
        println!("demo.ckaad: largest difference {worst}, range {range}");
        assert!(worst <= 0.01 * range, "largest difference {worst} in a range of {range}");
    }
}
