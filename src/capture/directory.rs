use super::pace::{PATIENCE, Pace, check_rate};
use super::{BadValue, CaptureError, Condition, Next, Source};
use ckaad_bundle::replace;
use ckaad_inspect::imaging::{self, Frame, PartView, Truth};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// What becomes of the images in the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every image once, in the order of their paths; then the source ends.
    #[default]
    Once,
    /// As `once`, again and again.
    Loop,
    /// A hot folder: every image that is there or comes, as soon as its size no longer changes.
    Watch,
}

/// Frames that may wait for the disk to say that their events are safe.
const MOST_GIVEN: usize = 10_000;

/// Size and time of writing: as long as both stay, it is the same image.
type Stamp = (u64, Option<SystemTime>);

/// What a hot folder does with an image that was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AfterInspection {
    /// Leaves it; it is judged again after a restart.
    #[default]
    Keep,
    Remove,
    /// Moves it to `move_to`, under another name if there is one of its name.
    Move,
}

/// Images from a directory, with all below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DirectoryConfig {
    /// The directory.
    pub path: PathBuf,
    pub mode: Mode,
    /// Images a second; 0 is as fast as they are judged.
    pub fps: f64,
    /// `watch` only: what happens to a judged image.
    pub after: AfterInspection,
    /// `after = "move"` only: where to.
    pub move_to: PathBuf,
    /// `watch` only: whether a folder below is removed as well that is left empty by it; for parts that have a folder each.
    pub remove_folders: bool,
    /// `watch` only: how long an image's size must stay the same before it counts as complete, in milliseconds.
    pub settle_ms: u64,
    /// Folder names tell the truth, as in the MVTec layout: `good` is good, any other a kind of defect. Only for counting.
    pub labelled: bool,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        DirectoryConfig {
            path: PathBuf::new(),
            mode: Mode::Once,
            fps: 0.0,
            after: AfterInspection::Keep,
            move_to: PathBuf::new(),
            remove_folders: false,
            settle_ms: 500,
            labelled: false,
        }
    }
}

impl DirectoryConfig {
    pub(super) fn check(&self) -> Result<(), BadValue> {
        let bad = |key, reason: &str| Err(BadValue { key, reason: reason.into() });
        if self.path.as_os_str().is_empty() {
            return bad("directory.path", "is empty; expected a directory of images");
        }
        check_rate("directory.fps", self.fps)?;
        if self.after != AfterInspection::Keep && self.mode != Mode::Watch {
            return bad("directory.after", "works in the mode \"watch\" only; it is a hot folder's setting");
        }
        if self.remove_folders && self.after == AfterInspection::Keep {
            return bad("directory.remove_folders", "is true, but `directory.after` keeps what lies in them");
        }
        if self.after == AfterInspection::Move {
            if self.move_to.as_os_str().is_empty() {
                return bad(
                    "directory.move_to",
                    "is empty; `directory.after = \"move\"` needs a directory to move images to",
                );
            }
            let same =
                |a: &Path, b: &Path| a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
            if same(&self.path, &self.move_to) {
                return bad("directory.move_to", "is `directory.path` itself; expected another directory");
            }
        }
        Ok(())
    }
}

pub(super) struct DirectorySource {
    config: DirectoryConfig,
    pace: Pace,
    /// What is to be judged; `watch`: as it was when it was queued.
    queue: VecDeque<(PathBuf, Option<Stamp>)>,
    /// `watch`: as it was when last looked at, and since when it is that.
    settling: HashMap<PathBuf, (Stamp, Instant)>,
    /// `watch`: what was queued already, as it was then. Written anew, it is another image.
    seen: HashMap<PathBuf, Stamp>,
    /// `watch`: images whose frames were given, as they were queued, until it is said that they were judged; a bounded number of the newest.
    given: VecDeque<(u64, PathBuf, Stamp)>,
    sequence: u64,
    last_scan: Option<Instant>,
    /// `watch`: whether the folder could be listed when last looked at; None before the first look.
    there: Option<bool>,
}

impl DirectorySource {
    pub(super) fn new(config: &DirectoryConfig) -> Result<Self, CaptureError> {
        // A hot folder that is not there yet, for instance a share that is not mounted, is waited for.
        let may_come = config.mode == Mode::Watch && !config.path.exists();
        if !config.path.is_dir() && !may_come {
            return Err(CaptureError::NotADirectory { key: "directory.path", path: config.path.clone() });
        }
        if config.after == AfterInspection::Move && !config.move_to.is_dir() {
            return Err(CaptureError::NotADirectory { key: "directory.move_to", path: config.move_to.clone() });
        }
        let mut source = DirectorySource {
            pace: Pace::new(config.fps),
            config: config.clone(),
            queue: VecDeque::new(),
            settling: HashMap::new(),
            seen: HashMap::new(),
            given: VecDeque::new(),
            sequence: 0,
            last_scan: None,
            there: None,
        };
        if config.mode != Mode::Watch {
            source.queue = once(images_under(&config.path)?);
            if source.queue.is_empty() {
                return Err(CaptureError::Empty(config.path.clone()));
            }
        }
        Ok(source)
    }

    /// Queues what has settled since the last look. False when it is too early for another one.
    fn scan(&mut self) -> Result<bool, CaptureError> {
        let due = self.last_scan.is_none_or(|at| at.elapsed() >= PATIENCE);
        if !due {
            return Ok(false);
        }
        self.last_scan = Some(Instant::now());
        let mut found = images_under(&self.config.path)?;
        if let Some(judged) = self.moved_below() {
            found.retain(|path| !path.starts_with(&judged));
        }
        let there: HashSet<&PathBuf> = found.iter().collect();
        self.settling.retain(|path, _| there.contains(path));
        self.seen.retain(|path, _| there.contains(path));
        for path in found {
            let Some(now) = stamp(&path).filter(|now| self.seen.get(&path) != Some(now)) else { continue };
            let entry = self.settling.entry(path.clone()).or_insert((now, Instant::now()));
            if entry.0 != now {
                *entry = (now, Instant::now());
            } else if now.0 > 0 && entry.1.elapsed().as_millis() >= u128::from(self.config.settle_ms) {
                self.settling.remove(&path);
                self.seen.insert(path.clone(), now);
                self.queue.push_back((path, Some(now)));
            }
        }
        Ok(true)
    }

    /// `move_to`, where it lies below the hot folder, as the list of images names it.
    fn moved_below(&self) -> Option<PathBuf> {
        if self.config.after != AfterInspection::Move {
            return None;
        }
        let (root, to) = (self.config.path.canonicalize().ok()?, self.config.move_to.canonicalize().ok()?);
        let below = to.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty())?;
        Some(self.config.path.join(below))
    }
}

impl Source for DirectorySource {
    fn next(&mut self) -> Next {
        if self.queue.is_empty() {
            match self.config.mode {
                Mode::Once => return Next::End,
                Mode::Loop => match images_under(&self.config.path) {
                    Ok(images) => self.queue = once(images),
                    Err(e) => {
                        std::thread::sleep(PATIENCE);
                        return Next::Skipped(e);
                    }
                },
                Mode::Watch => match self.scan() {
                    // Too early for a look.
                    Ok(false) => {}
                    // An empty folder is watched, too: that is all that can be said of it.
                    Ok(true) => {
                        if self.there.replace(true) != Some(true) {
                            return Next::Condition(Condition::Running);
                        }
                    }
                    Err(e) => {
                        if self.there.replace(false) != Some(false) {
                            return Next::Condition(Condition::Unplugged(e.to_string()));
                        }
                    }
                },
            }
        }
        if self.queue.is_empty() {
            std::thread::sleep(PATIENCE / 4);
            return Next::Idle;
        }
        if !self.pace.wait() {
            return Next::Idle;
        }
        let Some((path, stamp)) = self.queue.pop_front() else { return Next::Idle };
        let sequence = self.sequence;
        self.sequence += 1;
        match imaging::load(&path) {
            Ok(image) => {
                let id = path.strip_prefix(&self.config.path).unwrap_or(&path).display().to_string();
                let truth = self.config.labelled.then(|| truth_of(&path));
                let part = part_of(Path::new(&id));
                if let Some(stamp) = stamp.filter(|_| self.config.after != AfterInspection::Keep) {
                    self.given.push_back((sequence, path, stamp));
                    // Those whose events never became safe stay in the folder; they are judged again after a restart.
                    if self.given.len() > MOST_GIVEN {
                        self.given.pop_front();
                    }
                }
                Next::Frame(Frame { id, sequence, captured_at: Timestamp::now(), image, truth, part })
            }
            Err(e) => Next::Skipped(e.into()),
        }
    }

    fn judged(&mut self, sequence: u64) -> Result<(), CaptureError> {
        let Some(at) = self.given.iter().position(|(given, ..)| *given == sequence) else { return Ok(()) };
        let Some((_, path, judged)) = self.given.remove(at) else { return Ok(()) };
        // Written anew meanwhile: what lies there now was not judged, or not by this frame.
        if stamp(&path) != Some(judged) {
            return Ok(());
        }
        let (what, done) = match self.config.after {
            AfterInspection::Move => {
                let target = self.config.move_to.join(path.strip_prefix(&self.config.path).unwrap_or(&path));
                let folder = target.parent().map_or(Ok(()), std::fs::create_dir_all);
                ("move", folder.and_then(|()| rename(&path, &free(target))))
            }
            _ => ("remove", std::fs::remove_file(&path)),
        };
        match done {
            Ok(()) => {
                // The next file of this name is another image, however soon it comes.
                self.seen.remove(&path);
                if self.config.remove_folders {
                    // The first that is not empty ends it.
                    let below = path.ancestors().skip(1).take_while(|folder| *folder != self.config.path);
                    below.take_while(|folder| std::fs::remove_dir(folder).is_ok()).count();
                }
                Ok(())
            }
            Err(cause) => Err(CaptureError::Dispose { what, path, cause }),
        }
    }
}

/// Images that stay as they are.
fn once(images: Vec<PathBuf>) -> VecDeque<(PathBuf, Option<Stamp>)> {
    images.into_iter().map(|path| (path, None)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    path.metadata().ok().map(|m| (m.len(), m.modified().ok()))
}

/// `target`, or `NAME-1.EXT`, `NAME-2.EXT`, ... where there is such a file already: nothing is overwritten.
fn free(target: PathBuf) -> PathBuf {
    let part = |p: Option<&std::ffi::OsStr>| p.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(target.file_stem()), part(target.extension()));
    let other = |n: u32| target.with_file_name(format!("{stem}-{n}.{extension}"));
    if target.symlink_metadata().is_err() {
        return target;
    }
    (1..).map(other).find(|path| path.symlink_metadata().is_err()).unwrap_or(target)
}

/// A rename that also works across file systems, where the file is there whole before the other goes.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
            replace(to, |file| std::io::copy(&mut File::open(from)?, file).map(drop))?;
            std::fs::remove_file(from)
        }
        other => other,
    }
}

/// A folder is a part, and its pictures are views of it; what lies in no folder, by its path from the source's, is of no part.
fn part_of(id: &Path) -> Option<PartView> {
    let part = id.parent()?.to_str()?.to_owned();
    let name = id.file_stem()?.to_str()?.to_owned();
    (!part.is_empty()).then_some(PartView { part, name })
}

/// The truth by the name of the image's folder.
fn truth_of(path: &Path) -> Truth {
    match path.parent().and_then(Path::file_name).and_then(|n| n.to_str()) {
        Some("good") | None => Truth::Good,
        Some(kind) => Truth::Defective(kind.to_owned()),
    }
}

/// Every image file in and below `root`, sorted by path. Hidden files and folders are passed over; folder links are not
/// followed, so there is no way round in a circle.
fn images_under(root: &Path) -> Result<Vec<PathBuf>, CaptureError> {
    let mut images = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let list = |cause| CaptureError::List { path: folder.clone(), cause };
        let entries = match std::fs::read_dir(&folder) {
            // A folder below that went while we looked.
            Err(e) if folder != root && e.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(list)?,
        };
        for entry in entries {
            let entry = entry.map_err(list)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(_) if is_image(&path) => images.push(path),
                _ => {}
            }
        }
    }
    images.sort();
    Ok(images)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "bmp" | "tif" | "tiff")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn hot(root: &Path, after: AfterInspection) -> DirectoryConfig {
        let (path, move_to) = (root.join("in"), root.join("in/done"));
        DirectoryConfig { path, move_to, mode: Mode::Watch, after, settle_ms: 1, ..DirectoryConfig::default() }
    }

    fn write(path: &Path, side: u32) {
        image::RgbImage::new(side, side).save(path).unwrap();
    }

    /// The next answer that is not `Idle` within two seconds.
    fn wait(source: &mut DirectorySource) -> Option<Next> {
        let begun = Instant::now();
        std::iter::from_fn(|| Some(source.next()))
            .take_while(|_| begun.elapsed() < Duration::from_secs(2))
            .find(|next| !matches!(next, Next::Idle))
    }

    fn judge(source: &mut DirectorySource) -> Option<u32> {
        match wait(source) {
            // The folder is told to be there before its first image.
            Some(Next::Condition(Condition::Running)) => judge(source),
            Some(Next::Frame(frame)) => {
                source.judged(frame.sequence).unwrap();
                Some(frame.image.width())
            }
            _ => None,
        }
    }

    #[test]
    fn a_name_that_comes_again_is_another_image() {
        for after in [AfterInspection::Keep, AfterInspection::Remove, AfterInspection::Move] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("in/done")).unwrap();
            let image = root.path().join("in/part.png");
            let mut source = DirectorySource::new(&hot(root.path(), after)).unwrap();
            for side in [8, 16, 24] {
                write(&image, side);
                assert_eq!(judge(&mut source), Some(side), "{after:?}");
                // Written again before the folder is looked at the next time.
            }
            assert_eq!(judge(&mut source), None, "{after:?}: once each, and what was moved is not judged again");
            assert_eq!(image.exists(), after == AfterInspection::Keep);
            let moved = ["part.png", "part-1.png", "part-2.png"].map(|n| root.path().join("in/done").join(n).exists());
            assert_eq!(moved, [after == AfterInspection::Move; 3]);
        }
    }

    #[test]
    fn what_was_written_anew_while_it_was_judged_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("in")).unwrap();
        let image = root.path().join("in/part.png");
        write(&image, 8);
        let mut source = DirectorySource::new(&hot(root.path(), AfterInspection::Remove)).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
        let Some(Next::Frame(frame)) = wait(&mut source) else { panic!("the image is there") };
        write(&image, 16);
        source.judged(frame.sequence).unwrap();
        assert_eq!(judge(&mut source), Some(16));
        assert!(!image.exists());
    }

    #[test]
    fn a_hot_folder_that_is_not_there_yet_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let mut source = DirectorySource::new(&hot(root.path(), AfterInspection::Keep)).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Unplugged(why))) if why.contains("/in")));
        assert!(wait(&mut source).is_none(), "told once");
        std::fs::create_dir(root.path().join("in")).unwrap();
        write(&root.path().join("in/a.png"), 8);
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
        assert_eq!(judge(&mut source), Some(8));
    }

    #[test]
    fn a_wrong_move_to_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("in")).unwrap();
        let good = hot(root.path(), AfterInspection::Move);
        for (move_to, reason) in [
            (PathBuf::new(), "is empty; `directory.after = \"move\"` needs a directory to move images to"),
            (root.path().join("in/../in"), "is `directory.path` itself; expected another directory"),
        ] {
            let why = DirectoryConfig { move_to, ..good.clone() }.check().unwrap_err();
            assert_eq!((why.key, why.reason.as_str()), ("directory.move_to", reason));
        }
        let nowhere = DirectoryConfig { move_to: root.path().join("nowhere"), ..good };
        let why = DirectorySource::new(&nowhere).err().unwrap().to_string();
        assert!(why.ends_with("nowhere is not a directory; `directory.move_to` must be one that exists"), "{why}");
    }

    fn plain(path: &Path, mode: Mode) -> DirectoryConfig {
        DirectoryConfig { path: path.into(), mode, ..DirectoryConfig::default() }
    }

    fn ids(source: &mut DirectorySource, count: usize) -> Vec<String> {
        let next = || match source.next() {
            Next::Frame(frame) => frame.id,
            other => format!("{other:?}"),
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn images_come_in_the_order_of_their_paths_once_or_again_and_again() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["b", "good", ".hidden", "looked"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        for name in ["b/2.PNG", "a.png", "good/1.png", ".hidden/3.png", ".4.png", "c.Jpeg", "d.bmp", "e.tiff"] {
            write(&root.path().join(name), 8);
        }
        std::fs::write(root.path().join("b/notes.txt"), "no image").unwrap();
        // A link to a folder is not followed, one to a file is.
        std::os::unix::fs::symlink(root.path(), root.path().join("looked/round")).unwrap();
        std::os::unix::fs::symlink(root.path().join("a.png"), root.path().join("z.png")).unwrap();
        let order = ["a.png", "b/2.PNG", "c.Jpeg", "d.bmp", "e.tiff", "good/1.png", "z.png"];
        let mut once = DirectorySource::new(&plain(root.path(), Mode::Once)).unwrap();
        assert_eq!(ids(&mut once, 7), order);
        assert_eq!(ids(&mut once, 2), ["End", "End"]);
        let mut again = DirectorySource::new(&plain(root.path(), Mode::Loop)).unwrap();
        assert_eq!(ids(&mut again, 14), [order, order].concat());
        assert!(matches!(again.next(), Next::Frame(frame) if frame.sequence == 14 && frame.truth.is_none()));

        let labelled = DirectoryConfig { labelled: true, ..plain(root.path(), Mode::Once) };
        let mut source = DirectorySource::new(&labelled).unwrap();
        let truths = std::iter::repeat_with(|| match source.next() {
            Next::Frame(frame) => frame.truth.unwrap(),
            other => panic!("{other:?}"),
        });
        let truths: Vec<Truth> = truths.take(6).collect();
        assert_eq!((&truths[1], &truths[5]), (&Truth::Defective("b".into()), &Truth::Good));

        // Two a second: the second is not due.
        let mut slow = DirectorySource::new(&DirectoryConfig { fps: 2.0, ..plain(root.path(), Mode::Once) }).unwrap();
        assert_eq!(ids(&mut slow, 2), ["a.png", "Idle"]);
        // What is not a hot folder's is nobody's to dispose of.
        once.judged(0).unwrap();
        assert!(root.path().join("a.png").exists());
    }

    #[test]
    fn an_image_that_cannot_be_read_is_passed_over_and_counted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.png"), "no image").unwrap();
        write(&root.path().join("b.png"), 8);
        let mut source = DirectorySource::new(&plain(root.path(), Mode::Loop)).unwrap();
        let Next::Skipped(why) = source.next() else { panic!("not skipped") };
        assert!(why.to_string().contains("a.png is not an image that can be decoded"), "{why}");
        assert!(matches!(source.next(), Next::Frame(frame) if frame.sequence == 1));
        std::fs::remove_dir_all(root.path()).unwrap();
        assert!(matches!(source.next(), Next::Skipped(CaptureError::List { path, .. }) if path == root.path()));
    }

    #[test]
    fn a_folder_without_images_is_no_source_but_a_hot_one_is() {
        let root = tempfile::tempdir().unwrap();
        let why = |config: DirectoryConfig| DirectorySource::new(&config).err().unwrap().to_string();
        let (folder, nowhere) = (root.path().display(), root.path().join("nowhere"));
        for mode in [Mode::Once, Mode::Loop] {
            let empty = format!("no image (PNG, JPEG, BMP or TIFF) lies in or under {folder}");
            assert_eq!(why(plain(root.path(), mode)), empty);
            let gone = format!("{folder}/nowhere is not a directory; `directory.path` must be one that exists");
            assert_eq!(why(plain(&nowhere, mode)), gone);
        }
        assert!(DirectorySource::new(&plain(root.path(), Mode::Watch)).is_ok());
        // A file can never become a hot folder.
        std::fs::write(&nowhere, "").unwrap();
        assert!(why(plain(&nowhere, Mode::Watch)).contains("nowhere is not a directory"));
    }

    #[test]
    fn values_that_no_folder_can_have_are_named() {
        let good = plain(Path::new("/parts"), Mode::Watch);
        let only_hot = "works in the mode \"watch\" only; it is a hot folder's setting";
        for (config, key, reason) in [
            (
                DirectoryConfig { path: PathBuf::new(), ..good.clone() },
                "directory.path",
                "is empty; expected a directory of images",
            ),
            (DirectoryConfig { fps: -1.0, ..good.clone() }, "directory.fps", "is -1; expected 0 or a rate up to 10000"),
            (
                DirectoryConfig { mode: Mode::Loop, after: AfterInspection::Remove, ..good.clone() },
                "directory.after",
                only_hot,
            ),
        ] {
            assert_eq!(config.check(), Err(BadValue { key, reason: reason.into() }));
        }
        let move_to = PathBuf::from("/elsewhere");
        for config in [
            DirectoryConfig { after: AfterInspection::Remove, ..good.clone() },
            DirectoryConfig { after: AfterInspection::Move, move_to, ..good.clone() },
            good,
        ] {
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn a_hot_folder_waits_until_a_file_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let config = DirectoryConfig { settle_ms: 1000, ..plain(root.path(), Mode::Watch) };
        let (empty, growing) = (root.path().join("empty.png"), root.path().join("growing.png"));
        std::fs::write(&empty, "").unwrap();
        std::fs::write(&growing, "half").unwrap();
        let mut source = DirectorySource::new(&config).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            assert!(matches!(source.next(), Next::Idle));
        }
        write(&growing, 8);
        let written = Instant::now();
        assert_eq!(judge(&mut source), Some(8), "the half of it was not looked at");
        assert!(written.elapsed() >= Duration::from_millis(1000));
        assert_eq!(judge(&mut source), None, "an empty file is none yet");
        // Nobody asked for a while: the next question is a look, too.
        std::thread::sleep(PATIENCE * 2);
        write(&empty, 16);
        assert_eq!(judge(&mut source), Some(16));
    }

    #[test]
    fn a_hot_folder_that_goes_away_is_told_and_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("in");
        std::fs::create_dir(&folder).unwrap();
        let mut source = DirectorySource::new(&hot(root.path(), AfterInspection::Keep)).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
        std::fs::remove_dir(&folder).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Unplugged(_)))));
        std::fs::create_dir(&folder).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
    }

    #[test]
    fn a_judged_image_that_cannot_be_moved_is_told() {
        let root = tempfile::tempdir().unwrap();
        let done = root.path().join("in/done");
        std::fs::create_dir_all(&done).unwrap();
        write(&root.path().join("in/part.png"), 8);
        let mut source = DirectorySource::new(&hot(root.path(), AfterInspection::Move)).unwrap();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
        let Some(Next::Frame(frame)) = wait(&mut source) else { panic!("the image is there") };
        std::fs::remove_dir(&done).unwrap();
        std::fs::write(&done, "a file is in the way").unwrap();
        source.judged(frame.sequence + 1).unwrap();
        let why = source.judged(frame.sequence).unwrap_err().to_string();
        let image = root.path().join("in/part.png");
        assert!(why.starts_with(&format!("cannot move the judged image {}: ", image.display())), "{why}");
        assert!(image.exists());
    }

    #[test]
    fn nothing_is_overwritten_when_an_image_is_moved() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        assert_eq!(free(path("a.png")), path("a.png"));
        std::fs::write(path("a.png"), "").unwrap();
        assert_eq!(free(path("a.png")), path("a-1.png"));
        // A link that leads nowhere is something, too.
        std::os::unix::fs::symlink("nowhere", path("a-1.png")).unwrap();
        assert_eq!(free(path("a.png")), path("a-2.png"));
        std::fs::write(path("from"), "x").unwrap();
        rename(&path("from"), &path("to")).unwrap();
        assert!(!path("from").exists() && std::fs::read(path("to")).unwrap() == b"x");
        assert!(rename(&path("from"), &path("to")).is_err());
        // From one file system to another, where this machine has two.
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| path.metadata().map(|m| m.dev()).ok();
        match tempfile::tempdir_in("/dev/shm") {
            Ok(other) if device(other.path()) != device(root.path()) => {
                rename(&path("to"), &other.path().join("far")).unwrap();
                assert!(!path("to").exists() && std::fs::read(other.path().join("far")).unwrap() == b"x");
            }
            _ => ckaad_testing::skipped("/dev/shm is no file system of its own here"),
        }
    }

    /// Where frames come faster than the disk says that their events are safe, the oldest are forgotten, not kept for ever.
    #[test]
    fn frames_that_wait_for_the_disk_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("in")).unwrap();
        write(&root.path().join("in/part.png"), 8);
        let mut source = DirectorySource::new(&hot(root.path(), AfterInspection::Remove)).unwrap();
        let before = (1..MOST_GIVEN as u64).map(|n| (n + 1000, PathBuf::from("gone"), (1, None)));
        source.given = before.collect();
        assert!(matches!(wait(&mut source), Some(Next::Condition(Condition::Running))));
        for oldest in [1001, 1002] {
            assert!(matches!(wait(&mut source), Some(Next::Frame(_))));
            assert_eq!((source.given.len(), source.given.front().map(|(n, ..)| *n)), (MOST_GIVEN, Some(oldest)));
            write(&root.path().join("in/second.png"), 8);
        }
        source.judged(0).unwrap();
        assert!(!root.path().join("in/part.png").exists());
    }
}
