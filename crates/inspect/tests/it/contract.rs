//! A network that does not fit its manifest is refused before the first frame.

use ckaad_bundle::Bundle;
use ckaad_inspect::{InspectOptions, Inspector};
use ckaad_testing::demo_bundle;

#[test]
fn a_stride_that_is_not_the_networks_is_refused() {
    let mut bundle = Bundle::read(&demo_bundle()).unwrap();
    Inspector::new(&bundle, &InspectOptions::default()).unwrap();
    bundle.manifest.output_stride *= 2;
    let why = Inspector::new(&bundle, &InspectOptions::default()).err().unwrap().to_string();
    assert!(why.contains("output_stride"), "{why}");
}
