//! What a device believes about the repository: The Update Framework's client, by `tough`, with a memory that survives a power cut.
//!
//! ```text
//! Trust (one file) ──► scratch folder ──► tough: root N+1 .. ─► timestamp ─► snapshot ─► targets ──► Trust, whether it went well or not
//!                                            │ fetches through Remote
//! ```
//!
//! `tough` keeps its memory in files that a power cut may empty, an emptied one counts as absent, and it remembers the system's clock.
//! So it works in a scratch folder; what it verified there becomes part of [`Trust`], which its owner writes as one file. Expiry is looked
//! at here, by [`Clock`]. What was verified before a load failed is kept, too: a new root withdraws keys, whatever is wrong with the
//! timestamp behind it.

use crate::clock::{Clock, LONGEST_LIFE};
use crate::offer::{Candidate, ISSUED, MAX_TARGETS, OfferError, REVOKED};
use crate::remote::{FetchError, Remote};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tough::schema::{RoleType, Root, Signed, Targets};
use tough::{ExpirationEnforcement, Limits, Repository, RepositoryLoader, TransportError, TransportErrorKind};
use url::Url;

/// Most bytes of each role's file.
const LIMITS: Limits = Limits {
    max_root_size: 64 << 10,
    max_timestamp_size: 16 << 10,
    max_snapshot_size: 64 << 10,
    max_targets_size: 1 << 20,
    max_root_updates: 64,
};
/// Digests of withdrawn bundles that are looked at.
const MAX_REVOKED: usize = 1000;

/// Why the repository is not believed. A message holds its cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum TrustError {
    #[error("the root of trust {0} cannot be used: {1}")]
    Root(String, String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(
        "the update repository is refused: its {role} is signed by {valid} of the {threshold} keys that are needed"
    )]
    Signatures { role: String, valid: u64, threshold: u64 },
    #[error("the update repository is refused: its {role} has a signature twice by one key")]
    SignedTwice { role: String },
    #[error(
        "the update repository is refused: its {role} has version {new}, after version {known} was seen (a rollback)"
    )]
    Older { role: String, known: u64, new: u64 },
    #[error("the update repository is refused: its {role} {version} says something else than when it was seen first")]
    Changed { role: String, version: u64 },
    #[error("the update repository is refused: its root {new} does not follow the root {known}")]
    RootSequence { known: u64, new: u64 },
    #[error(
        "the update repository is refused: its {role} has version {got}, where version {expected} was promised (a mix of two states)"
    )]
    Mixed { role: String, got: u64, expected: u64 },
    #[error("the update repository is refused: its {0} has another digest than was promised")]
    Digest(String),
    #[error("the update repository is refused: its {role} is longer than {limit} bytes")]
    TooLong { role: String, limit: u64 },
    #[error(
        "the update repository is refused: its {role} cannot be read ({reason}); a page of HTML in its place comes from a portal that wants a login"
    )]
    Malformed { role: String, reason: String },
    #[error(
        "the update repository is refused: its {role} expired at {expires}, and it is {now} ({clock}); the publisher may have to sign it anew"
    )]
    Expired { role: String, expires: Timestamp, now: Timestamp, clock: &'static str },
    #[error("the update repository is refused: it delegates to the role {0}, which this agent does not follow")]
    Delegated(String),
    #[error("the update repository is refused: it has {0} targets; up to {MAX_TARGETS} are looked at")]
    TooMany(usize),
    #[error("the update repository is refused: {0}")]
    Other(String),
    #[error("metadata cannot be checked: no room for a scratch folder: {0}")]
    Scratch(String),
}

/// What was verified last, byte for byte as it was served. Cheap to clone; its owner keeps it as one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    root: String,
    timestamp: Option<String>,
    snapshot: Option<String>,
    targets: Option<String>,
    /// Newest signed time of issue.
    issued: Option<Timestamp>,
}

/// What the repository offers, verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// Bundles that can be asked for, newest publication first.
    pub candidates: Vec<Candidate>,
    /// Targets that are none.
    pub refused: Vec<OfferError>,
    /// Digests of bundles that were withdrawn.
    pub revoked: Vec<String>,
    /// Versions of root, timestamp, snapshot and targets.
    pub versions: [u64; 4],
    /// The role that expires first, and when.
    pub expires: (String, Timestamp),
    /// Whether less than a third of the time between issue and expiry is left.
    pub stale: bool,
    /// The clock is behind what was signed, by so much.
    pub clock_behind: Option<SignedDuration>,
}

impl Trust {
    /// Begins with a root that came by another way: with the device, or by hand.
    ///
    /// # Errors
    /// The file is no root, or is not signed by its own keys.
    pub fn from_root(path: &Path) -> Result<Trust, TrustError> {
        let name = path.display().to_string();
        let bad = |reason: String| TrustError::Root(name.clone(), reason);
        let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        if bytes.len() as u64 > LIMITS.max_root_size {
            return Err(bad(format!("it has {} bytes; expected up to {}", bytes.len(), LIMITS.max_root_size)));
        }
        let root: Signed<Root> = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        root.signed.verify_role(&root).map_err(|e| bad(e.to_string()))?;
        let root = String::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
        Ok(Trust { root, timestamp: None, snapshot: None, targets: None, issued: None })
    }

    /// Version of the root that is believed, and digest of what it says: people compare it with the publisher's.
    ///
    /// # Errors
    /// What was kept is no root.
    pub fn root(&self) -> Result<(u64, String), TrustError> {
        let bad = |e: String| TrustError::Root("that was kept".into(), e);
        let root: Signed<Root> = serde_json::from_str(&self.root).map_err(|e| bad(e.to_string()))?;
        Ok((root.signed.version.get(), root_fingerprint(&root)))
    }

    /// Whether a bundle of this digest was among the targets when they were verified last.
    pub fn knows(&self, digest: &str) -> bool {
        let targets = self.targets.as_deref().and_then(|text| serde_json::from_str::<Signed<Targets>>(text).ok());
        targets.is_some_and(|t| t.signed.targets.values().any(|target| hex::encode(&target.hashes.sha256) == digest))
    }

    /// The system's time over the newest time that was signed.
    pub fn clock(&self, system: Timestamp) -> Clock {
        Clock::new(system, self.issued)
    }

    /// Fetches and verifies all metadata. What was verified is in `self` afterwards, also when something behind it was not.
    ///
    /// # Errors
    /// Why the repository is not believed.
    pub async fn refresh(&mut self, remote: &Remote, system: Timestamp) -> Result<Catalogue, TrustError> {
        remote.set_floor(self.clock(system).floor);
        let scratch = tempfile::tempdir().map_err(|e| TrustError::Scratch(e.to_string()))?;
        self.write(scratch.path()).map_err(|e| TrustError::Scratch(e.to_string()))?;
        let (failure, served) = (Arc::new(Mutex::new(None)), Arc::<Mutex<Served>>::default());
        let transport = MetadataTransport { remote: remote.clone(), failure: failure.clone(), served: served.clone() };
        // Only the names of the files matter: the transport knows where they lie.
        let nowhere = Url::parse("ckaad-update:///").expect("a constant");
        let (root, before) = (self.root.clone(), self.clone());
        let loaded = RepositoryLoader::new(&root, nowhere.clone(), nowhere)
            .transport(transport)
            .limits(LIMITS)
            .datastore(scratch.path())
            // Expiry is looked at below, with a clock that a wrong system clock does not poison.
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await;
        self.read(scratch.path(), &served.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(version) = changed_without_a_new_version(before.timestamp.as_deref(), self.timestamp.as_deref()) {
            self.keep_only_the_root(before);
            return Err(TrustError::Changed { role: RoleType::Timestamp.to_string(), version });
        }
        let repository = loaded.map_err(|e| {
            let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            failure.unwrap_or_else(|| explain(&e))
        })?;
        let judged = self.judge(&repository, system);
        // What has expired is not kept, nor what lies behind it; the time at which it was signed is, for that has been.
        if let Err(TrustError::Expired { role, .. }) = &judged {
            match role.as_str() {
                "targets" => self.targets = before.targets,
                "snapshot" => (self.snapshot, self.targets) = (before.snapshot, before.targets),
                _ => self.keep_only_the_root(before),
            }
        }
        judged
    }

    /// All but a new root is as it was: the keys that it withdraws are withdrawn whatever else is wrong.
    fn keep_only_the_root(&mut self, before: Trust) {
        *self = Trust { root: std::mem::take(&mut self.root), issued: self.issued.max(before.issued), ..before };
    }

    /// Lays what is believed where `tough` looks for it. Not the root: it takes that as an argument.
    fn write(&self, folder: &Path) -> std::io::Result<()> {
        for (name, text) in self.parts() {
            if let Some(text) = text {
                std::fs::write(folder.join(name), text)?;
            }
        }
        Ok(())
    }

    fn parts(&self) -> [(&'static str, &Option<String>); 3] {
        [("timestamp.json", &self.timestamp), ("snapshot.json", &self.snapshot), ("targets.json", &self.targets)]
    }

    /// Takes over what `tough` verified. It writes down what it understood, so that a signature over what it did not write in the same way (a fraction
    /// of a second) would be wrong the next time: what was served is what is kept.
    fn read(&mut self, folder: &Path, served: &Served) {
        let part = |name: &str, old: Option<&String>| {
            let verified = std::fs::read_to_string(folder.join(name)).ok()?;
            // Not written by this load, it is what we laid there.
            if old == Some(&verified) {
                return Some(verified);
            }
            let same = |text: &&String| version_of(text) == version_of(&verified);
            let files = served.iter().filter(|(file, _)| file.ends_with(name)).map(|(_, text)| text);
            Some(files.into_iter().find(same).cloned().unwrap_or(verified))
        };
        // We laid no root there.
        if let Some(root) = part("root.json", None).filter(|root| version_of(root) != version_of(&self.root)) {
            self.root = root;
        }
        (self.timestamp, self.snapshot, self.targets) = (
            part("timestamp.json", self.timestamp.as_ref()),
            part("snapshot.json", self.snapshot.as_ref()),
            part("targets.json", self.targets.as_ref()),
        );
    }

    /// The files of what is believed, by their names: root, timestamp, snapshot and targets, as far as they are known.
    pub fn metadata(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parts = self.parts().into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
        std::iter::once(("root.json", self.root.as_str())).chain(parts)
    }

    /// Length and SHA-256 of a target, whatever it is.
    pub fn target(&self, name: &str) -> Option<(u64, String)> {
        let targets = serde_json::from_str::<Signed<Targets>>(self.targets.as_deref()?).ok()?;
        let (_, target) = targets.signed.targets.iter().find(|(target, _)| target.raw() == name)?;
        Some((target.length, hex::encode(&target.hashes.sha256)))
    }

    /// Expiry, and what is ours to ask of the targets.
    fn judge(&mut self, repository: &Repository, system: Timestamp) -> Result<Catalogue, TrustError> {
        let (root, timestamp) = (&repository.root().signed, &repository.timestamp().signed);
        let (snapshot, targets) = (&repository.snapshot().signed, &repository.targets().signed);
        if let Some(role) = targets.delegations.iter().flat_map(|d| &d.roles).next() {
            return Err(TrustError::Delegated(role.name.clone()));
        }
        let issued = timestamp.r#_extra.get(ISSUED).and_then(|v| v.as_str()?.parse::<Timestamp>().ok());
        let sound = |issued: &Timestamp| {
            *issued <= timestamp.expires && timestamp.expires.duration_since(*issued) <= LONGEST_LIFE
        };
        self.issued = issued.filter(sound).max(self.issued);
        let clock = self.clock(system);
        let now = clock.now();
        let expiries = [
            (RoleType::Root, root.expires),
            (RoleType::Timestamp, timestamp.expires),
            (RoleType::Snapshot, snapshot.expires),
            (RoleType::Targets, targets.expires),
        ];
        for (role, expires) in expiries {
            if expires < now {
                let clock = if clock.behind().is_some() {
                    "by what was signed last; the system's clock is behind that"
                } else {
                    "by the system's clock"
                };
                return Err(TrustError::Expired { role: role.to_string(), expires, now, clock });
            }
        }
        if targets.targets.len() > MAX_TARGETS {
            return Err(TrustError::TooMany(targets.targets.len()));
        }
        let (mut candidates, mut refused) = (vec![], vec![]);
        for (name, target) in &targets.targets {
            let digest = hex::encode(&target.hashes.sha256);
            let custom = target.custom.get(crate::offer::CUSTOM);
            match Candidate::of(name.raw(), target.length, &digest, custom) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => refused.push(why),
            }
        }
        candidates.sort_by(|a, b| (b.offer.sequence, &a.target).cmp(&(a.offer.sequence, &b.target)));
        let revoked = targets.r#_extra.get(REVOKED).and_then(|v| v.as_array()).map_or_else(Vec::new, |digests| {
            digests.iter().take(MAX_REVOKED).filter_map(|d| Some(d.as_str()?.to_owned())).collect()
        });
        let (role, expires) = expiries.into_iter().min_by_key(|(_, expires)| *expires).expect("there are four");
        let stale = issued.is_some_and(|issued| {
            let (life, left) = (timestamp.expires.duration_since(issued), timestamp.expires.duration_since(now));
            left.as_secs() * 3 < life.as_secs()
        });
        Ok(Catalogue {
            candidates,
            refused,
            revoked,
            versions: [root.version, timestamp.version, snapshot.version, targets.version].map(|v| v.get()),
            expires: (role.to_string(), expires),
            stale,
            clock_behind: clock.behind(),
        })
    }
}

fn signed(text: &str) -> Option<serde_json::Value> {
    Some(serde_json::from_str::<serde_json::Value>(text).ok()?.get_mut("signed")?.take())
}

fn version_of(text: &str) -> Option<u64> {
    signed(text)?["version"].as_u64()
}

/// The version under which two files say different things: `tough` compares no more than versions.
fn changed_without_a_new_version(before: Option<&str>, now: Option<&str>) -> Option<u64> {
    let (before, now) = (signed(before?)?, signed(now?)?);
    let version = now["version"].as_u64()?;
    (before["version"] == now["version"] && before != now).then_some(version)
}

/// SHA-256 over the canonical form of what a root says, without its signatures: the same on device and publisher.
pub fn root_fingerprint(root: &Signed<Root>) -> String {
    use sha2::Digest;
    use tough::schema::Role;
    let canonical = root.signed.canonical_form().unwrap_or_default();
    hex::encode(sha2::Sha256::digest(canonical))
}

/// Gives `tough` the four roles' files and no others.
#[derive(Clone, Debug)]
struct MetadataTransport {
    remote: Remote,
    /// Why a file did not come: `tough`'s own sentence would name a URL that is none.
    failure: Arc<Mutex<Option<TrustError>>>,
    served: Arc<Mutex<Served>>,
}

/// Files as they came, by their names.
type Served = BTreeMap<String, String>;

/// Which role's file this is, and how long it may be.
fn role_of(file: &str) -> Option<(&'static str, u64)> {
    let (version, name) = file.split_once('.')?;
    let numbered = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    match (file, name) {
        ("timestamp.json", _) => Some(("timestamp", LIMITS.max_timestamp_size)),
        ("snapshot.json", _) => Some(("snapshot", LIMITS.max_snapshot_size)),
        ("targets.json", _) => Some(("targets", LIMITS.max_targets_size)),
        (_, "root.json") if numbered => Some(("root", LIMITS.max_root_size)),
        (_, "snapshot.json") if numbered => Some(("snapshot", LIMITS.max_snapshot_size)),
        (_, "targets.json") if numbered => Some(("targets", LIMITS.max_targets_size)),
        _ => None,
    }
}

#[async_trait::async_trait]
impl tough::Transport for MetadataTransport {
    async fn fetch(&self, url: Url) -> Result<tough::TransportStream, TransportError> {
        let file = url.path().trim_start_matches('/').to_owned();
        let fetched = match role_of(&file) {
            None => {
                let role = file.trim_end_matches(".json").trim_start_matches(|c: char| c.is_ascii_digit());
                Err(TrustError::Delegated(role.trim_start_matches('.').into()))
            }
            Some((role, limit)) => self.remote.small(&format!("metadata/{file}"), limit).await.map_err(|e| match e {
                FetchError::TooLong { limit, .. } => TrustError::TooLong { role: role.into(), limit },
                e => TrustError::Fetch(e),
            }),
        };
        if let Ok(text) = fetched.as_deref().map(String::from_utf8_lossy) {
            self.served.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone(), text.into_owned());
        }
        // A failure is the stream's first item: told by `fetch` itself, it would end the chain of roots without a word.
        let item = fetched.map(Bytes::from).map_err(|why| {
            let absent = matches!(why, TrustError::Fetch(FetchError::NotThere { .. })) && file.ends_with(".root.json");
            let kind = if absent { TransportErrorKind::FileNotFound } else { TransportErrorKind::Other };
            let text = why.to_string();
            if !absent {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
            TransportError::new_with_cause(kind, file, text)
        });
        Ok(Box::pin(futures_util::stream::iter([item])))
    }
}

/// A sentence of ours for each way in which `tough` refuses.
fn explain(e: &tough::error::Error) -> TrustError {
    use tough::error::Error as E;
    use tough::schema::Error as S;
    match e {
        E::VerifyMetadata { role, source: S::SignatureThreshold { threshold, valid, .. }, .. } => {
            TrustError::Signatures { role: role.to_string(), valid: *valid, threshold: *threshold }
        }
        E::VerifyMetadata { role, source: S::DuplicateKeyId { .. }, .. } => {
            TrustError::SignedTwice { role: role.to_string() }
        }
        E::OlderMetadata { role: RoleType::Root, current_version, new_version, .. } => {
            TrustError::RootSequence { known: *current_version, new: *new_version }
        }
        E::OlderMetadata { role, current_version, new_version, .. } => {
            TrustError::Older { role: role.to_string(), known: *current_version, new: *new_version }
        }
        E::OlderSnapshotInTimestamp { snapshot_new, snapshot_old, .. } => {
            TrustError::Older { role: "snapshot".into(), known: *snapshot_old, new: *snapshot_new }
        }
        E::SnapshotRoleRollback { role, old_role_version, new_role_version, .. } => TrustError::Older {
            role: role.trim_end_matches(".json").into(),
            known: *old_role_version,
            new: *new_role_version,
        },
        E::VersionMismatch { role, fetched, expected, .. } => {
            TrustError::Mixed { role: role.to_string(), got: *fetched, expected: *expected }
        }
        E::MaxUpdatesExceeded { max_root_updates, .. } => {
            TrustError::Other(format!("more than {max_root_updates} new roots in a row"))
        }
        E::ParseMetadata { role, source, .. } => {
            TrustError::Malformed { role: role.to_string(), reason: source.to_string() }
        }
        E::Transport { source, .. } => {
            // What the stream's end found out: length and digest.
            let mut text = source.to_string();
            let mut cause: Option<&dyn std::error::Error> = Some(source);
            while let Some(e) = cause {
                if let Some(inner) = e.downcast_ref::<E>() {
                    return explain(inner);
                }
                text = e.to_string();
                cause = e.source();
            }
            TrustError::Other(text)
        }
        E::HashMismatch { context, .. } => {
            let file = context.rsplit('/').next().unwrap_or(context);
            TrustError::Digest(file.trim_end_matches(".json").into())
        }
        E::MaxSizeExceeded { max_size, specifier, .. } => TrustError::TooLong {
            role: specifier.split([' ', '_', '.']).find(|w| *w != "max").unwrap_or(specifier).into(),
            limit: *max_size,
        },
        other => TrustError::Other(other.to_string()),
    }
}
