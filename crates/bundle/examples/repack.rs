//! Packs a bundle again as another version, and on demand with golden answers that no machine gives: what a device makes of a model that
//! judges otherwise there than where it was made.
//!
//!     cargo run -p ckaad-bundle --example repack -- IN.ckaad OUT.ckaad VERSION [spoil]

use ckaad_bundle::{Bundle, Draft};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, version, rest @ ..] = arguments.as_slice() else {
        return Err("usage: repack IN.ckaad OUT.ckaad VERSION [spoil]".into());
    };
    let mut draft = Draft::from(Bundle::read(Path::new(from))?);
    draft.manifest.version = version.parse()?;
    if rest.iter().any(|word| word == "spoil") {
        draft.golden.iter_mut().for_each(|sample| sample.expected.score += 1.0);
    }
    let digest = draft.write(Path::new(to))?;
    println!("{to} {version} {digest}");
    Ok(())
}
