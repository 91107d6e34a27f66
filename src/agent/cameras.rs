//! `cameras`: what can be asked for on this machine.

use super::Outcome;
use crate::capture::list_devices;
use ckaad_inspect::console::{OutputError, say};

/// Prints every device and its formats.
///
/// # Errors
/// Standard output takes no more.
pub fn cameras() -> Result<Outcome, OutputError> {
    let devices = list_devices();
    if devices.is_empty() {
        say(format_args!("there is no /dev/videoN on this machine"))?;
    }
    let mut usable = false;
    for device in devices {
        match device {
            Ok(device) => {
                usable |= !device.formats.is_empty();
                say(format_args!("{}: {} ({})", device.path, device.card, device.driver))?;
                for format in &device.formats {
                    say(format_args!("    {format}"))?;
                }
            }
            Err(why) => say(format_args!("{why}"))?,
        }
    }
    Ok(if usable { Outcome::Well } else { Outcome::NotWell })
}
