//! A bundle and an image, and what comes of them: the whole of inspection without an agent.
//!
//!     cargo run --release -p ckaad-inspect --example judge_image -- models/demo.ckaad part.png

use ckaad_bundle::Bundle;
use ckaad_inspect::{InspectOptions, Inspector, heatmap, imaging};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, bundle, image] = arguments.as_slice() else { return Err("usage: judge_image BUNDLE IMAGE".into()) };
    let bundle = Bundle::read(Path::new(bundle))?;
    let inspector = Inspector::new(&bundle, &InspectOptions::default())?;
    let image = imaging::load(Path::new(image))?;
    let verdict = inspector.inspect(&image)?;
    println!(
        "score {} of {}: {}",
        verdict.score,
        verdict.threshold,
        if verdict.is_defective() { "defective" } else { "good" }
    );
    heatmap(&image, &verdict, 1024).save("heatmap.png")?;
    Ok(())
}
