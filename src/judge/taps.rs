//! Who only looks: at every judged frame, without keeping the line waiting.

use super::model::Model;
use ckaad_inspect::Verdict;
use ckaad_inspect::imaging::Frame;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::{self, error::TrySendError};

/// A frame and what was found in it.
#[derive(Clone)]
pub struct Judged {
    /// Its name.
    pub camera: Arc<str>,
    /// As it came from the source.
    pub frame: Arc<Frame>,
    /// What is published.
    pub verdict: Arc<Verdict>,
    /// Whose verdict it is.
    pub model: Arc<Model>,
}

/// Whether a tap wants to see a frame; called in the camera's thread.
type Wants = Box<dyn Fn(&Judged) -> bool + Send>;

struct Outlet {
    wants: Wants,
    sender: mpsc::Sender<Judged>,
    lost: Arc<AtomicU64>,
}

/// Every tap of the agent. Cameras put in what they judged; a tap without room loses it, and counts.
#[derive(Default)]
pub struct Taps {
    outlets: Mutex<Vec<Outlet>>,
    lost: AtomicU64,
}

impl Taps {
    /// A list is valid after every statement: a lock poisoned by a panic elsewhere is taken as it is.
    fn outlets(&self) -> MutexGuard<'_, Vec<Outlet>> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees from now on every judged frame that it `wants`, as long as `room` of them are enough to wait for it; until it is dropped.
    pub fn open(&self, room: usize, wants: impl Fn(&Judged) -> bool + Send + 'static) -> Tap {
        let (sender, judged) = mpsc::channel(room.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        self.outlets().push(Outlet { wants: Box::new(wants), sender, lost: lost.clone() });
        Tap { judged, lost }
    }

    /// Never waits.
    pub fn put(&self, judged: &Judged) {
        self.outlets().retain(|outlet| {
            if outlet.sender.is_closed() {
                return false;
            }
            if (outlet.wants)(judged)
                && let Err(TrySendError::Full(_)) = outlet.sender.try_send(judged.clone())
            {
                outlet.lost.fetch_add(1, Relaxed);
                self.lost.fetch_add(1, Relaxed);
            }
            true
        });
    }

    /// Frames that some tap had no room for.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// One who looks.
pub struct Tap {
    judged: mpsc::Receiver<Judged>,
    lost: Arc<AtomicU64>,
}

impl Tap {
    /// The next frame; none when there will be no more.
    pub async fn next(&mut self) -> Option<Judged> {
        self.judged.recv().await
    }

    /// Frames that it had no room for.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckaad_inspect::imaging::RgbImage;
    use std::path::Path;

    fn judged(model: &Arc<Model>, n: u64) -> Judged {
        let input = model.inspector.manifest().input;
        let image = RgbImage::from_pixel(input.width, input.height, image::Rgb([n as u8; 3]));
        let verdict = Arc::new(model.inspector.inspect(&image).unwrap());
        let frame = Frame {
            sequence: n,
            id: n.to_string(),
            captured_at: jiff::Timestamp::now(),
            image,
            truth: None,
            part: None,
        };
        Judged { camera: "cam".into(), frame: Arc::new(frame), verdict, model: model.clone() }
    }

    fn model() -> Arc<Model> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.ckaad");
        Arc::new(
            Model::load(&path, &crate::judge::EnginePool::new(crate::judge::EngineSettings::of(1, 1, 1))).unwrap().0,
        )
    }

    #[tokio::test]
    async fn a_tap_that_does_not_look_loses_frames_and_keeps_nobody_waiting() {
        let (taps, model) = (Taps::default(), model());
        let (mut slow, mut quick) = (taps.open(2, |_| true), taps.open(100, |judged| judged.frame.sequence % 2 == 0));
        let gone = taps.open(1, |_| panic!("it is gone"));
        drop(gone);
        for n in 0..10 {
            taps.put(&judged(&model, n));
        }
        assert_eq!((taps.lost(), slow.lost(), quick.lost()), (8, 8, 0));
        drop(taps);
        let mut ids = vec![];
        while let Some(judged) = slow.next().await {
            ids.push(judged.frame.sequence);
        }
        assert_eq!(ids, [0, 1]);
        ids.clear();
        while let Some(judged) = quick.next().await {
            ids.push(judged.frame.sequence);
        }
        assert_eq!(ids, [0, 2, 4, 6, 8]);
    }
}
