//! Real power cuts: ext4 on a loop device, shut down by the kernel so that neither data nor journal reaches the disk any more. Needs root and loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `FS_IOC_SHUTDOWN`, and the flag by which nothing is flushed.
const SHUTDOWN: u32 = 0x8004_587D;
const NOLOGFLUSH: u32 = 2;

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A file system that can be cut off.
pub struct Volume {
    image: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl Volume {
    /// None where this machine has no way to it, which is said.
    ///
    /// # Panics
    /// The folder cannot be written.
    pub fn make(folder: &Path) -> Option<Volume> {
        let volume = Volume { image: folder.join("image"), at: folder.join("mounted") };
        std::fs::create_dir_all(&volume.at).unwrap();
        std::fs::File::create(&volume.image).unwrap().set_len(64 << 20).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", volume.image.to_str()?]) && volume.mount();
        if !made {
            crate::skipped("no ext4 on a loop device can be mounted here (it takes root); the disk model's tests ran");
        }
        made.then_some(volume)
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()])
    }

    /// What a power cut does: neither data nor journal is flushed, and every call behind it fails.
    ///
    /// # Panics
    /// The kernel refuses.
    #[allow(unsafe_code)]
    pub fn cut(&self) {
        let root = std::fs::File::open(&self.at).unwrap();
        // SAFETY: the kernel reads a u32 for this request, and it is one.
        unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NOLOGFLUSH)) }.unwrap();
    }

    /// As at the next start. Nobody may use it.
    ///
    /// # Panics
    /// It cannot be mounted any more.
    pub fn mount_again(&self) {
        assert!(run("umount", &[self.at.to_str().unwrap()]) && self.mount());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run("umount", &[self.at.to_str().unwrap()]);
    }
}
