//! The outbox's thread. A disk can take any time for a write, so nobody who must go on (a camera's thread, the session, the watchdog) ever
//! waits for it: they leave a request, and look at the answer when it is there.
//!
//! ```text
//!  cameras ──put──► queue ─► thread (owns the Outbox, and with it SQLite) ─► receipt: on disk?
//!  session ──pending, acked──►  │                                         ─► messages to send
//!                               └─► waiting, health: the latest numbers, for whoever asks
//! ```
//!
//! Everything that waits in the queue when the thread comes round goes into one transaction (group commit), so that a slow disk is
//! asked to sync once, and not once a message. The queue is bounded by [`QUEUE_BYTES`]: beyond it heatmaps and updates are dropped and
//! counted; an `opened` only beyond twice that.

use super::message::{Limits, Message, Note, OutboxError, Priority, Stored, lost};
use super::outbox::Outbox;
use crate::events::OutboxHealth;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// What may wait in memory for the thread to come round.
pub const QUEUE_BYTES: usize = 16 << 20;
/// Most messages of one transaction.
const GROUP: usize = 64;

/// Messages in the order to send them, each with its id.
pub(super) type Batch = Vec<(i64, Message)>;

enum Request {
    Put { messages: Vec<Message>, notes: Vec<Note>, stored: oneshot::Sender<bool> },
    Pending { skip: HashSet<i64>, count: usize, bytes: usize, answer: oneshot::Sender<Result<Batch, OutboxError>> },
    Acked { ids: Vec<i64>, answer: oneshot::Sender<Result<(), OutboxError>> },
    Oversize { messages: u64 },
    Notes { answer: oneshot::Sender<Result<BTreeMap<String, String>, OutboxError>> },
    Close { done: oneshot::Sender<()> },
}

#[derive(Default)]
struct Shared {
    /// Left with us, not yet taken by the thread.
    queued: AtomicU64,
    queued_bytes: AtomicUsize,
    /// How often something was put.
    puts: AtomicU64,
    /// As the outbox counted when the thread last came round.
    health: Mutex<OutboxHealth>,
    /// Dropped because the queue was full.
    dropped: Mutex<OutboxHealth>,
    /// Wakes the session.
    arrived: Notify,
}

/// Numbers only, valid after every statement: a lock poisoned by a panic elsewhere is taken as it is.
fn lock(numbers: &Mutex<OutboxHealth>) -> MutexGuard<'_, OutboxHealth> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a message is safe, once the disk has said so.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<bool>);

impl Receipt {
    /// None while the disk has not answered; true when everything that was put together is on it.
    pub fn on_disk(&mut self) -> Option<bool> {
        match self.0.try_recv() {
            Ok(on_disk) => Some(on_disk),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(false),
        }
    }
}

/// The way to the outbox; cheap to clone.
#[derive(Clone)]
pub struct StoreHandle {
    requests: Sender<Request>,
    shared: Arc<Shared>,
}

/// The other end: what the thread of the outbox does.
pub struct Store {
    path: PathBuf,
    limits: Limits,
    inbox: Receiver<Request>,
    shared: Arc<Shared>,
    /// None before it was opened, and after it was closed.
    outbox: Option<Outbox>,
}

impl Store {
    /// Does what is asked until it is closed, or the last handle is dropped; the first thing is to open the file. What is wrong with that is logged,
    /// and no reason not to start. It may be called again after it panicked: the outbox is taken up as it is.
    pub fn work(&mut self) {
        let outbox = self.outbox.get_or_insert_with(|| {
            if let Some(folder) = self.path.parent() {
                // What is wrong with it, opening the file will say.
                let _ = std::fs::create_dir_all(folder);
            }
            let (outbox, trouble) = Outbox::open(&self.path, self.limits);
            if let Some(trouble) = trouble {
                tracing::error!("{trouble}");
            }
            outbox
        });
        let done = serve(outbox, &self.inbox, &self.shared);
        self.outbox = None;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }
}

impl StoreHandle {
    /// Nothing happens before somebody calls [`Store::work`], in a thread of its own.
    pub fn new(path: PathBuf, limits: Limits) -> (StoreHandle, Store) {
        let (requests, inbox) = channel();
        let shared = Arc::new(Shared::default());
        let store = Store { path, limits, inbox, shared: shared.clone(), outbox: None };
        (StoreHandle { requests, shared }, store)
    }

    /// Keeps `messages` until the broker has them, and `notes` for ever. Never waits; the receipt tells when they are on disk.
    pub fn put(&self, mut messages: Vec<Message>, notes: Vec<Note>) -> Receipt {
        let (stored, receipt) = oneshot::channel();
        let queued = self.shared.queued_bytes.load(SeqCst);
        let all = messages.len();
        messages.retain(|message| {
            let limit = if message.priority == Priority::Opened { 2 * QUEUE_BYTES } else { QUEUE_BYTES };
            let room = queued + message.size() as usize <= limit;
            if !room {
                self.drop_at_the_queue(message.priority);
            }
            room
        });
        // One that was dropped was not stored: its receipt must not say so.
        let stored = if messages.len() == all { stored } else { oneshot::channel().0 };
        self.shared.queued.fetch_add(messages.len() as u64, SeqCst);
        self.shared.queued_bytes.fetch_add(bytes(&messages), SeqCst);
        self.shared.puts.fetch_add(1, SeqCst);
        self.send(Request::Put { messages, notes, stored });
        Receipt(receipt)
    }

    fn drop_at_the_queue(&self, priority: Priority) {
        let mut dropped = lock(&self.shared.dropped);
        let first = *dropped == OutboxHealth::default();
        *lost(&mut dropped, priority) += 1;
        if first || priority == Priority::Opened {
            tracing::warn!(
                "the disk is too slow for the outbox: a message ({priority:?}) was dropped; health counts them"
            );
        }
    }

    /// A request to a thread that has ended is answered by its dropped channel.
    fn send(&self, request: Request) {
        let _ = self.requests.send(request);
    }

    /// The oldest messages whose ids `skip` does not hold, as [`Outbox::pending`].
    pub(super) fn pending(
        &self,
        skip: HashSet<i64>,
        count: usize,
        bytes: usize,
    ) -> oneshot::Receiver<Result<Batch, OutboxError>> {
        let (answer, receiver) = oneshot::channel();
        self.send(Request::Pending { skip, count, bytes, answer });
        receiver
    }

    /// As [`Outbox::acked`].
    pub(super) fn acked(&self, ids: Vec<i64>) -> oneshot::Receiver<Result<(), OutboxError>> {
        let (answer, receiver) = oneshot::channel();
        self.send(Request::Acked { ids, answer });
        receiver
    }

    /// As [`Outbox::count_oversize`].
    pub(super) fn count_oversize(&self, messages: u64) {
        self.send(Request::Oversize { messages });
    }

    /// Every note. Waits for the disk: at the start, where nothing else may begin before it is known.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn notes(&self) -> Result<BTreeMap<String, String>, OutboxError> {
        let (answer, receiver) = oneshot::channel();
        self.send(Request::Notes { answer });
        receiver.await.unwrap_or_else(|_| Ok(BTreeMap::new()))
    }

    /// How often something was put, where the outbox's thread has come round for all of it.
    pub(super) fn settled(&self) -> Option<u64> {
        // In this order: what is put in between is not among them.
        let puts = self.shared.puts.load(SeqCst);
        (self.shared.queued.load(SeqCst) == 0).then_some(puts)
    }

    /// Messages that the broker does not have yet.
    pub fn waiting(&self) -> u64 {
        // In this order: the thread counts a message into health before it takes it out of the queue.
        let queued = self.shared.queued.load(SeqCst);
        queued + lock(&self.shared.health).waiting
    }

    /// The latest numbers; nobody asks the disk for them.
    pub fn health(&self) -> OutboxHealth {
        let queued = self.shared.queued.load(SeqCst);
        let dropped = *lock(&self.shared.dropped);
        let counted = *lock(&self.shared.health);
        OutboxHealth {
            waiting: counted.waiting + queued,
            in_memory: counted.in_memory + queued,
            bytes: counted.bytes + self.shared.queued_bytes.load(SeqCst) as u64,
            dropped_heatmaps: counted.dropped_heatmaps + dropped.dropped_heatmaps,
            dropped_updates: counted.dropped_updates + dropped.dropped_updates,
            lost_opened: counted.lost_opened + dropped.lost_opened,
            ..counted
        }
    }

    /// Resolves when something was put.
    pub(super) async fn arrived(&self) {
        self.shared.arrived.notified().await;
    }

    /// Stores what is left and ends the thread. False when the disk did not get that far within `patience`.
    pub async fn close(&self, patience: Duration) -> bool {
        let (done, closed) = oneshot::channel();
        self.send(Request::Close { done });
        tokio::time::timeout(patience, closed).await.is_ok()
    }
}

fn bytes(messages: &[Message]) -> usize {
    messages.iter().map(|m| m.size() as usize).sum()
}

/// Gives back who waits for the end, if somebody asked for it.
fn serve(outbox: &mut Outbox, inbox: &Receiver<Request>, shared: &Shared) -> Option<oneshot::Sender<()>> {
    *lock(&shared.health) = outbox.health();
    shared.arrived.notify_one();
    let mut next = None;
    while let Some(request) = next.take().or_else(|| inbox.recv().ok()) {
        match request {
            Request::Put { messages, notes, stored } => {
                next = put_together(outbox, inbox, shared, (messages, notes, stored));
            }
            Request::Pending { skip, count, bytes, answer } => {
                let batch = outbox.pending(|id| skip.contains(&id), count, bytes);
                // An unusable file is found when it is read.
                *lock(&shared.health) = outbox.health();
                // Whoever asked may have gone: the connection broke.
                let _ = answer.send(batch);
            }
            Request::Acked { ids, answer } => {
                let result = outbox.acked(&ids);
                *lock(&shared.health) = outbox.health();
                let _ = answer.send(result);
            }
            Request::Oversize { messages } => {
                outbox.count_oversize(messages);
                *lock(&shared.health) = outbox.health();
            }
            Request::Notes { answer } => drop(answer.send(outbox.notes())),
            Request::Close { done } => {
                outbox.flush();
                *lock(&shared.health) = outbox.health();
                return Some(done);
            }
        }
    }
    outbox.flush();
    None
}

/// Messages on their way from the queue to the outbox. However that ends, they are not in the queue any more.
struct Taken<'a> {
    shared: &'a Shared,
    priorities: Vec<Priority>,
    bytes: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut dropped = lock(&self.shared.dropped);
            self.priorities.iter().for_each(|&priority| *lost(&mut dropped, priority) += 1);
        }
        self.shared.queued.fetch_sub(self.priorities.len() as u64, SeqCst);
        self.shared.queued_bytes.fetch_sub(self.bytes, SeqCst);
        self.shared.arrived.notify_one();
    }
}

/// Stores `first` and every further put that waits, in one transaction. Gives back the request behind them.
fn put_together(
    outbox: &mut Outbox,
    inbox: &Receiver<Request>,
    shared: &Shared,
    first: (Vec<Message>, Vec<Note>, oneshot::Sender<bool>),
) -> Option<Request> {
    let (mut messages, mut notes, stored) = first;
    let mut receipts = vec![(messages.len(), stored)];
    let mut behind = None;
    while messages.len() < GROUP {
        match inbox.try_recv() {
            Ok(Request::Put { messages: more, notes: newer, stored }) => {
                receipts.push((more.len(), stored));
                messages.extend(more);
                notes.extend(newer);
            }
            Ok(other) => {
                behind = Some(other);
                break;
            }
            Err(_) => break,
        }
    }
    let priorities = messages.iter().map(|message| message.priority).collect();
    let taken = Taken { shared, priorities, bytes: bytes(&messages) };
    fail::fail_point!("outbox-put");
    let mut answers = outbox.put(messages, notes).into_iter();
    for (messages, receipt) in receipts {
        let mut on_disk = true;
        for answer in answers.by_ref().take(messages) {
            if let Err(why) = &answer {
                tracing::debug!("{why}");
            }
            on_disk &= matches!(answer, Ok(Stored::OnDisk));
        }
        // Whoever put it need not be interested.
        let _ = receipt.send(on_disk);
    }
    // First counted as waiting, then taken out of the queue: for a moment twice, never not at all.
    *lock(&shared.health) = outbox.health();
    drop(taken);
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: usize, priority: Priority, bytes: usize) -> Message {
        let event_id = n.to_string();
        Message { priority, topic: "t".into(), content_type: "c".into(), event_id, payload: vec![0; bytes] }
    }

    fn open(path: PathBuf, limits: Limits) -> (StoreHandle, std::thread::JoinHandle<()>) {
        let (handle, mut store) = StoreHandle::new(path, limits);
        (handle, std::thread::spawn(move || store.work()))
    }

    #[tokio::test]
    async fn what_was_put_has_a_receipt_and_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.sqlite");
        let limits = Limits { max_bytes: 1 << 20 };
        let (store, thread) = open(path.clone(), limits);
        let mut receipts: Vec<Receipt> =
            (0..100).map(|n| store.put(vec![message(n, Priority::Opened, 10)], vec![])).collect();
        assert!(store.waiting() >= 100, "counted from the moment on when it was put");
        let note = Note { key: "k".into(), value: Some("v".into()) };
        store.put(vec![], vec![note]);
        assert!(store.close(Duration::from_secs(10)).await);
        assert!(receipts.iter_mut().all(|r| r.on_disk() == Some(true)));
        thread.join().unwrap();

        let (store, _thread) = open(path, limits);
        assert_eq!(store.notes().await.unwrap().get("k").map(String::as_str), Some("v"));
        let batch = store.pending(HashSet::new(), 1000, usize::MAX).await.unwrap().unwrap();
        let ids: Vec<String> = batch.iter().map(|(_, m)| m.event_id.clone()).collect();
        assert_eq!(ids, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        store.acked(batch.iter().map(|(id, _)| *id).collect()).await.unwrap().unwrap();
        assert_eq!((store.waiting(), store.health().waiting), (0, 0));
    }

    #[tokio::test]
    async fn a_queue_that_is_full_drops_heatmaps_and_keeps_what_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _thread) = open(dir.path().join("o"), Limits { max_bytes: 256 << 20 });
        // As if the disk had not come round for long.
        store.shared.queued_bytes.fetch_add(QUEUE_BYTES, SeqCst);
        let mut event = store.put(vec![message(0, Priority::Opened, 100)], vec![]);
        let mut picture = store.put(vec![message(0, Priority::Heatmap, 100)], vec![]);
        assert!(store.close(Duration::from_secs(10)).await);
        assert_eq!((event.on_disk(), picture.on_disk()), (Some(true), Some(false)));
        let health = store.health();
        assert_eq!((health.waiting, health.dropped_heatmaps, health.lost_opened), (1, 1, 0));
    }

    /// Nobody has come round for the queue yet: what waits in it is counted, and what it has no room for, too, each where it belongs.
    #[test]
    fn what_the_queue_holds_and_what_it_drops_is_counted() {
        let (store, _work) = StoreHandle::new("nowhere".into(), Limits { max_bytes: 1 << 20 });
        let one = message(0, Priority::Opened, 100);
        let bytes = 2 * one.size();
        store.put(vec![one.clone(), one], vec![]);
        let health = store.health();
        assert_eq!((health.waiting, health.in_memory, health.bytes, store.waiting()), (2, 2, bytes, 2));
        store.shared.queued_bytes.fetch_add(2 * QUEUE_BYTES, SeqCst);
        for priority in [Priority::Heatmap, Priority::Updated, Priority::Closed, Priority::Opened] {
            let mut receipt = store.put(vec![message(0, priority, 1)], vec![]);
            assert_eq!(receipt.on_disk(), Some(false), "{priority:?}");
        }
        let health = store.health();
        assert_eq!((health.dropped_heatmaps, health.dropped_updates, health.lost_opened), (1, 2, 1));
        assert_eq!(store.waiting(), 2);
    }

    #[test]
    fn what_waits_goes_into_one_transaction_up_to_a_bound_and_to_another_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.sqlite");
        let limits = Limits { max_bytes: 1 << 20 };
        let (store, work) = StoreHandle::new(path.clone(), limits);
        let mut receipts: Vec<Receipt> =
            (0..GROUP + 3).map(|n| store.put(vec![message(n, Priority::Opened, 1)], vec![])).collect();
        // One of two has no room on the disk.
        let mut torn = store.put(vec![message(0, Priority::Opened, 1), message(1, Priority::Heatmap, 2 << 20)], vec![]);
        store.count_oversize(5);
        let (mut outbox, _) = Outbox::open(&path, limits);
        let mut together = || {
            let Ok(Request::Put { messages, notes, stored }) = work.inbox.try_recv() else { panic!("a put waits") };
            let behind = put_together(&mut outbox, &work.inbox, &work.shared, (messages, notes, stored));
            (behind, outbox.health().waiting)
        };
        assert!(matches!(together(), (None, waiting) if waiting == GROUP as u64));
        assert!(receipts.iter_mut().take(GROUP).all(|r| r.on_disk() == Some(true)));
        assert_eq!(receipts[GROUP].on_disk(), None);
        let (behind, waiting) = together();
        assert!(matches!(behind, Some(Request::Oversize { messages: 5 })));
        assert_eq!(waiting, GROUP as u64 + 4);
        assert!(receipts.iter_mut().skip(GROUP + 1).all(|r| r.on_disk() == Some(true)));
        assert_eq!(torn.on_disk(), Some(false));
        // All are in the outbox, and none in the queue.
        let health = store.health();
        assert_eq!((health.waiting, health.in_memory), (GROUP as u64 + 4, 0));
    }
}
