//! `cameras`: what can be asked for on this machine.

use super::{Outcome, say};
use crate::capture::list_devices;

/// Prints every device and its formats.
pub fn cameras() -> Outcome {
    let devices = list_devices();
    if devices.is_empty() {
        say(format_args!("there is no /dev/videoN on this machine"));
    }
    let mut usable = false;
    for device in devices {
        match device {
            Ok(device) => {
                usable |= !device.formats.is_empty();
                say(format_args!("{}: {} ({})", device.path, device.card, device.driver));
                for format in &device.formats {
                    say(format_args!("    {format}"));
                }
            }
            Err(why) => say(format_args!("{why}")),
        }
    }
    if usable { Outcome::Well } else { Outcome::NotWell }
}
