//! A repository: a folder of static files for any web server or object store.
//!
//! ```text
//! REPO/metadata/1.root.json 2.root.json ..   each signed by the keys of the one before
//! REPO/metadata/N.targets.json N.snapshot.json
//! REPO/metadata/timestamp.json               the only file that ever changes, and the last that is written
//! REPO/targets/SHA256.NAME.ckaad
//! ```
//!
//! Whoever fetches while something is published finds the old state or the new one: everything else is in place before `timestamp.json`
//! is replaced. It is compared right before with what was read at the beginning, so two publishers never overwrite each other.

use super::keys::{Key, KeyError, KeyFolder, ROLES, Role};
use crate::offer::{CUSTOM, FORMAT, ISSUED, MAX_TARGETS, Offer, REVOKED, is_name};
use crate::trust::root_fingerprint;
use aws_lc_rs::rand::SystemRandom;
use ckaad_bundle::{Bundle, BundleError, replace};
use jiff::{SignedDuration, Timestamp};
use semver::VersionReq;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use tough::TargetName;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role as TufRole, RoleKeys, RoleType, Root, Signed, Snapshot, Target, Targets,
    Timestamp as TimestampRole,
};

const SPEC_VERSION: &str = "1.0.0";
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A machine that was shut down for weeks must find something that has not expired.
const TIMESTAMP_DAYS: i32 = 30;
const TARGETS_DAYS: i32 = 180;
const ROOT_DAYS: i32 = 730;

/// Why nothing was published. A message holds its cause.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum PublishError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: io::Error },
    #[error("{0} is a link; a repository holds files")]
    Link(PathBuf),
    #[error("{0} is no metadata of this kind: {1}")]
    Malformed(PathBuf, String),
    #[error("{0} is not signed as its root asks for: {1}")]
    Unsigned(PathBuf, String),
    #[error(
        "the keys in {keys} are not those of the repository {repository}: its root has the fingerprint {theirs}, theirs {ours}"
    )]
    OtherRoot { keys: PathBuf, repository: PathBuf, theirs: String, ours: String },
    #[error("somebody else published in {0} meanwhile; nothing was changed, do it again")]
    MovedOn(PathBuf),
    #[error("somebody else is publishing in {0}; do it again when they are done")]
    Locked(PathBuf),
    #[error("{what} is {given:?}; expected {expected}")]
    Value { what: &'static str, given: String, expected: &'static str },
    #[error("the repository has no bundle {0}")]
    NoSuchBundle(String),
    #[error("the repository has {MAX_TARGETS} bundles, and devices look at no more; revoke some")]
    Full,
    #[error("signing failed: {0}")]
    Sign(String),
}

/// What is published, besides the bundle itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Empty is the name in the bundle.
    pub model: String,
    /// Empty is every device.
    pub group: String,
    /// Empty is any.
    pub hardware: String,
    /// None is what the bundle asks for.
    pub agent: Option<VersionReq>,
    /// Share of the devices.
    pub percent: u8,
}

impl Default for Publication {
    fn default() -> Self {
        let (model, group, hardware) = Default::default();
        Publication { model, group, hardware, agent: None, percent: 100 }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The target's name.
    pub target: String,
    /// What is said of it.
    pub offer: Offer,
    /// Its digest.
    pub digest: String,
}

/// What a repository holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Of root, timestamp, snapshot and targets, in this order: version and expiry.
    pub roles: Vec<(String, u64, Timestamp)>,
    /// Digest of what the root says.
    pub fingerprint: String,
    /// Target and offer, newest first.
    pub bundles: Vec<(String, Offer)>,
    /// Digests.
    pub revoked: Vec<String>,
}

/// A repository on this machine's disk, checked, while nobody else publishes in it.
pub struct Repository {
    folder: PathBuf,
    root: Signed<Root>,
    targets: Targets,
    snapshot: Snapshot,
    timestamp: TimestampRole,
    /// `timestamp.json` as it was read; none in a new repository.
    seen: Option<Vec<u8>>,
    /// Held until the end.
    _lock: std::fs::File,
}

impl Repository {
    /// Makes keys and the root of a new repository.
    ///
    /// # Errors
    /// Something is there already, or cannot be written.
    pub async fn init_keys(keys: &KeyFolder, root_keys: usize, threshold: usize) -> Result<Signed<Root>, PublishError> {
        if !(1..=root_keys).contains(&threshold) || root_keys > 16 {
            let given = format!("{threshold} of {root_keys}");
            return Err(PublishError::Value {
                what: "the threshold",
                given,
                expected: "1 to the number of root keys, at most 16",
            });
        }
        keys.create()?;
        let path = keys.root_path();
        if path.exists() {
            return Err(KeyError::Exists(path).into());
        }
        let mut root = Root {
            spec_version: SPEC_VERSION.into(),
            consistent_snapshot: true,
            version: NonZeroU64::MIN,
            expires: from_now(ROOT_DAYS),
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        let mut root_signers = vec![];
        for role in ROLES {
            let (count, threshold) = if role == Role::Root { (root_keys, threshold) } else { (1, 1) };
            let mut ids = vec![];
            for number in 1..=count {
                let key = Key::generate()?;
                ids.push(add_key(&mut root, &key)?);
                keys.keep(role, number, &key)?;
                if role == Role::Root {
                    root_signers.push(key);
                }
            }
            root.roles.insert(role_type(role), role_keys(ids, threshold));
        }
        let signed = sign(root.clone(), &root, root_signers).await?;
        write(&path, signed.buffer())?;
        Ok(signed.signed().clone())
    }

    /// Opens a repository, or begins one with the root of `keys`.
    ///
    /// # Errors
    /// It is another's, is damaged, or somebody else is at work in it.
    pub fn open(folder: &Path, keys: &KeyFolder) -> Result<Repository, PublishError> {
        let ours: Signed<Root> = read(&keys.root_path())?;
        verify(&ours.signed, &ours, &keys.root_path())?;
        for part in ["metadata", "targets"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).map_err(|cause| file_error(&path, cause))?;
            if path.is_symlink() {
                return Err(PublishError::Link(path));
            }
        }
        let lock = lock(folder)?;
        let metadata = folder.join("metadata");
        let mut root = ours.clone();
        let first = metadata.join(format!("{}.root.json", root.signed.version));
        if first.exists() {
            let theirs: Signed<Root> = read(&first)?;
            let (ours, theirs) = (root_fingerprint(&root), root_fingerprint(&theirs));
            if ours != theirs {
                let keys = keys.root_path().parent().unwrap_or(Path::new(".")).to_owned();
                return Err(PublishError::OtherRoot { keys, repository: folder.into(), theirs, ours });
            }
        } else if metadata.join("timestamp.json").exists() {
            return Err(PublishError::Malformed(first, "it is missing".into()));
        }
        // Newer ones that somebody else rotated to.
        loop {
            let path = metadata.join(format!("{}.root.json", root.signed.version.get() + 1));
            if !path.exists() {
                break;
            }
            let next: Signed<Root> = read(&path)?;
            verify(&root.signed, &next, &path)?;
            verify(&next.signed, &next, &path)?;
            root = next;
        }
        let timestamp_path = metadata.join("timestamp.json");
        let seen = match std::fs::read(&timestamp_path) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(file_error(&timestamp_path, e)),
        };
        let fresh = (SPEC_VERSION.to_owned(), NonZeroU64::MIN, from_now(0));
        let (targets, snapshot, timestamp) = if seen.is_some() {
            // A rotated key signs nothing old: the version counts, not who signed it under an older root.
            let timestamp: Signed<TimestampRole> = read(&timestamp_path)?;
            let snapshot_version = version_of(&timestamp.signed.meta, "snapshot.json", &timestamp_path)?;
            let path = metadata.join(format!("{snapshot_version}.snapshot.json"));
            let snapshot: Signed<Snapshot> = read(&path)?;
            let targets_version = version_of(&snapshot.signed.meta, "targets.json", &path)?;
            let path = metadata.join(format!("{targets_version}.targets.json"));
            let targets: Signed<Targets> = read(&path)?;
            verify(&root.signed, &targets, &path)?;
            (targets.signed, snapshot.signed, timestamp.signed)
        } else {
            let (spec, version, expires) = fresh;
            let mut targets = Targets::new(spec.clone(), version, expires);
            targets.delegations = None;
            (targets, Snapshot::new(spec.clone(), version, expires), TimestampRole::new(spec, version, expires))
        };
        Ok(Repository { folder: folder.into(), root, targets, snapshot, timestamp, seen, _lock: lock })
    }

    /// Adds a bundle, or says something else of one that is there.
    ///
    /// # Errors
    /// The bundle is no good, a value is none, or as [`Repository::open`] and [`KeyFolder::read`] say. Nothing has changed then.
    pub async fn publish(
        mut self,
        bundle: &Path,
        what: &Publication,
        keys: &KeyFolder,
    ) -> Result<Published, PublishError> {
        let signers = Signers::read(keys)?;
        let read = Bundle::read(bundle)?;
        let bytes = std::fs::read(bundle).map_err(|cause| file_error(bundle, cause))?;
        let digest = hex::encode(Sha256::digest(&bytes));
        let offer = self.offer(&read, what, &digest)?;
        let name = offer.target_name(&digest);
        let target_name = TargetName::new(name.clone()).map_err(|e| PublishError::Sign(e.to_string()))?;
        let target = Target {
            length: bytes.len() as u64,
            hashes: Hashes { sha256: hex::decode(&digest).unwrap_or_default().into(), _extra: HashMap::new() },
            custom: HashMap::from([(CUSTOM.to_owned(), serde_json::to_value(&offer).expect("an offer is plain data"))]),
            _extra: HashMap::new(),
        };
        self.targets.targets.insert(target_name, target);
        if self.targets.targets.len() > MAX_TARGETS {
            return Err(PublishError::Full);
        }
        // Published again, it is withdrawn no more.
        let revoked: Vec<String> = self.revoked().into_iter().filter(|d| *d != digest).collect();
        self.set_revoked(revoked);
        write(&self.folder.join("targets").join(format!("{digest}.{name}")), &bytes)?;
        self.sign_all(signers).await?;
        Ok(Published { target: name, offer, digest })
    }

    fn offer(&self, bundle: &Bundle, what: &Publication, digest: &str) -> Result<Offer, PublishError> {
        let manifest = &bundle.manifest;
        let model = if what.model.is_empty() { manifest.name.clone() } else { what.model.clone() };
        let names =
            [("the model", &model, false), ("the group", &what.group, true), ("the hardware", &what.hardware, true)];
        for (what, name, optional) in names {
            if !(is_name(name) || optional && name.is_empty()) {
                let expected = "up to 64 of a-z, 0-9, `-` and `_`";
                return Err(PublishError::Value { what, given: name.clone(), expected });
            }
        }
        if !(1..=100).contains(&what.percent) {
            let given = what.percent.to_string();
            return Err(PublishError::Value { what: "the share of the devices", given, expected: "1 to 100 %" });
        }
        let offers: Vec<(String, Offer)> = self.offers();
        // Said again of the same bundle, it is the same publication: who has it need not take it a second time.
        let known = offers.iter().find(|(name, offer)| name.contains(&digest[..12]) && offer.model == model);
        let newest = offers.iter().map(|(_, offer)| offer.sequence).max().unwrap_or(0).max(self.highest());
        let sequence = known.map_or(newest + 1, |(_, offer)| offer.sequence);
        Ok(Offer {
            format: FORMAT,
            model,
            version: manifest.version.clone(),
            sequence,
            group: what.group.clone(),
            hardware: what.hardware.clone(),
            agent: what.agent.clone().unwrap_or_else(|| manifest.engine.clone()),
            percent: what.percent,
        })
    }

    /// The highest sequence that was ever given: withdrawn bundles are not in the targets any more.
    fn highest(&self) -> u64 {
        self.targets.r#_extra.get(HIGHEST).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    fn offers(&self) -> Vec<(String, Offer)> {
        let offer = |(name, target): (&TargetName, &Target)| {
            let offer = serde_json::from_value(target.custom.get(CUSTOM)?.clone()).ok()?;
            Some((name.raw().to_owned(), offer))
        };
        let mut offers: Vec<(String, Offer)> = self.targets.targets.iter().filter_map(offer).collect();
        offers.sort_by(|a, b| (b.1.sequence, &a.0).cmp(&(a.1.sequence, &b.0)));
        offers
    }

    fn revoked(&self) -> Vec<String> {
        let revoked = self.targets.r#_extra.get(REVOKED).and_then(|v| v.as_array());
        revoked.map_or_else(Vec::new, |d| d.iter().filter_map(|d| Some(d.as_str()?.to_owned())).collect())
    }

    fn set_revoked(&mut self, revoked: Vec<String>) {
        if revoked.is_empty() {
            self.targets.r#_extra.remove(REVOKED);
        } else {
            self.targets.r#_extra.insert(REVOKED.into(), json!(revoked));
        }
    }

    /// Withdraws a bundle: it is never offered again, and devices that have it go back. `which`: its version, the name of its target, or
    /// the beginning of its digest.
    ///
    /// # Errors
    /// There is none, or as [`Repository::publish`].
    pub async fn revoke(mut self, which: &str, keys: &KeyFolder) -> Result<Vec<String>, PublishError> {
        let signers = Signers::read(keys)?;
        let digest_of = |target: &Target| hex::encode(&target.hashes.sha256);
        let matches = |name: &TargetName, target: &Target| {
            let digest = digest_of(target);
            let offer: Option<Offer> = target.custom.get(CUSTOM).and_then(|c| serde_json::from_value(c.clone()).ok());
            name.raw() == which
                || which.len() >= 8 && digest.starts_with(which)
                || offer.is_some_and(|offer| offer.version.to_string() == which)
        };
        let found: Vec<(TargetName, String)> = self
            .targets
            .targets
            .iter()
            .filter(|(name, target)| matches(name, target))
            .map(|(name, target)| (name.clone(), digest_of(target)))
            .collect();
        if found.is_empty() {
            return Err(PublishError::NoSuchBundle(which.into()));
        }
        let mut revoked = self.revoked();
        for (name, digest) in &found {
            self.targets.targets.remove(name);
            revoked.retain(|d| d != digest);
            revoked.push(digest.clone());
        }
        self.set_revoked(revoked);
        self.sign_all(signers).await?;
        Ok(found.into_iter().map(|(name, _)| name.raw().to_owned()).collect())
    }

    /// Signs again what is there, so that it does not expire. `all`: snapshot and targets too, not the timestamp alone.
    ///
    /// # Errors
    /// As [`Repository::publish`].
    pub async fn resign(mut self, all: bool, keys: &KeyFolder) -> Result<Timestamp, PublishError> {
        if all || self.seen.is_none() {
            self.sign_all(Signers::read(keys)?).await
        } else {
            let timestamp = keys.read(Role::Timestamp)?;
            self.timestamp_and_end(timestamp).await
        }
    }

    /// Gives a role a new key; the old one signs nothing any more. The new root is signed by the keys of the old one too.
    ///
    /// # Errors
    /// As [`Repository::publish`]; or too few root keys lie in the folder.
    pub async fn rotate(mut self, role: Role, keys: &KeyFolder) -> Result<u64, PublishError> {
        let old_root = self.root.signed.clone();
        let old_keys = keys.read(Role::Root)?;
        let held = old_keys.len();
        let needed = old_root.roles.get(&RoleType::Root).map_or(1, |r| r.threshold.get() as usize);
        if held < needed {
            let given = format!("{held} keys");
            return Err(PublishError::Value {
                what: "what lies in the folder of the root's keys",
                given,
                expected: "as many as the root's threshold",
            });
        }
        let mut root = old_root.clone();
        root.version = root.version.saturating_add(1);
        root.expires = from_now(ROOT_DAYS);
        // Of root the first key is replaced; the others stay in the hands that they are in.
        let new = Key::generate()?;
        let new_id = add_key(&mut root, &new)?;
        let known = root.roles.get_mut(&role_type(role)).ok_or(KeyError::Generate)?;
        // A role other than root has one key: whatever it was called, it is gone.
        let gone: Vec<KeyId> = match role {
            Role::Root => old_keys.first().map(key_id).transpose()?.into_iter().collect(),
            _ => known.keyids.clone(),
        };
        known.keyids.retain(|id| !gone.contains(id));
        known.keyids.push(new_id);
        root.keys.retain(|id, _| !gone.contains(id));
        keys.retire(role, 1, old_root.version.get())?;
        keys.keep(role, 1, &new)?;
        let by_old = sign(root.clone(), &old_root, old_keys).await?;
        let by_new = sign(root.clone(), &root, keys.read(Role::Root)?).await?;
        let signed = by_new
            .add_old_signatures(by_old.signed().signatures.clone())
            .map_err(|e| PublishError::Sign(e.to_string()))?;
        verify(&old_root, signed.signed(), &keys.root_path())?;
        verify(&root, signed.signed(), &keys.root_path())?;
        self.root = signed.signed().clone();
        write(&self.folder.join("metadata").join(format!("{}.root.json", root.version)), signed.buffer())?;
        write(&keys.root_path(), signed.buffer())?;
        self.sign_all(Signers::read(keys)?).await?;
        Ok(root.version.get())
    }

    /// What it holds.
    pub fn status(&self) -> Status {
        let roles = vec![
            ("root".into(), self.root.signed.version.get(), self.root.signed.expires),
            ("timestamp".into(), self.timestamp.version.get(), self.timestamp.expires),
            ("snapshot".into(), self.snapshot.version.get(), self.snapshot.expires),
            ("targets".into(), self.targets.version.get(), self.targets.expires),
        ];
        let (bundles, revoked) = (self.offers(), self.revoked());
        Status { roles, fingerprint: root_fingerprint(&self.root), bundles, revoked }
    }

    /// Targets, snapshot and timestamp anew.
    async fn sign_all(mut self, signers: Signers) -> Result<Timestamp, PublishError> {
        let first = self.seen.is_none();
        let highest = self.offers().first().map_or(0, |(_, offer)| offer.sequence).max(self.highest());
        self.targets.r#_extra.insert(HIGHEST.into(), json!(highest));
        self.targets.version = next(self.targets.version, first);
        self.targets.expires = from_now(TARGETS_DAYS);
        let metadata = self.folder.join("metadata");
        let root_path = metadata.join(format!("{}.root.json", self.root.signed.version));
        if !root_path.exists() {
            let bytes = serde_json::to_vec_pretty(&self.root).expect("a root is plain data");
            write(&root_path, &bytes)?;
        }
        let root = self.root.signed.clone();
        let targets = sign(self.targets.clone(), &root, vec![signers.targets]).await?;
        write(&metadata.join(format!("{}.targets.json", self.targets.version)), targets.buffer())?;
        self.snapshot.version = next(self.snapshot.version, first);
        self.snapshot.expires = from_now(TARGETS_DAYS);
        self.snapshot.meta = HashMap::from([("targets.json".to_owned(), metafile(self.targets.version, &targets))]);
        let snapshot = sign(self.snapshot.clone(), &root, vec![signers.snapshot]).await?;
        write(&metadata.join(format!("{}.snapshot.json", self.snapshot.version)), snapshot.buffer())?;
        self.timestamp.meta = HashMap::from([("snapshot.json".to_owned(), metafile(self.snapshot.version, &snapshot))]);
        self.timestamp_and_end(vec![signers.timestamp]).await
    }

    async fn timestamp_and_end(&mut self, signer: Vec<Key>) -> Result<Timestamp, PublishError> {
        self.timestamp.version = next(self.timestamp.version, self.seen.is_none());
        self.timestamp.expires = from_now(TIMESTAMP_DAYS);
        self.timestamp.r#_extra.insert(ISSUED.into(), json!(from_now(0).to_string()));
        let root = self.root.signed.clone();
        let timestamp = sign(self.timestamp.clone(), &root, signer).await?;
        let path = self.folder.join("metadata/timestamp.json");
        let now = std::fs::read(&path).ok();
        if now != self.seen {
            return Err(PublishError::MovedOn(self.folder.clone()));
        }
        write(&path, timestamp.buffer())?;
        Ok(self.timestamp.expires)
    }
}

/// The key of the targets role under which the highest sequence stands that was ever given.
const HIGHEST: &str = "ckaad_sequence";

/// The keys that every publication needs.
struct Signers {
    targets: Key,
    snapshot: Key,
    timestamp: Key,
}

impl Signers {
    fn read(keys: &KeyFolder) -> Result<Signers, PublishError> {
        let one = |role| Ok::<Key, PublishError>(keys.read(role)?.remove(0));
        Ok(Signers { targets: one(Role::Targets)?, snapshot: one(Role::Snapshot)?, timestamp: one(Role::Timestamp)? })
    }
}

fn next(version: NonZeroU64, first: bool) -> NonZeroU64 {
    if first { version } else { version.saturating_add(1) }
}

/// To the second: some readers take no fractions.
fn from_now(days: i32) -> Timestamp {
    let then = Timestamp::now() + DAY * days;
    Timestamp::from_second(then.as_second()).unwrap_or(then)
}

fn role_type(role: Role) -> RoleType {
    match role {
        Role::Root => RoleType::Root,
        Role::Targets => RoleType::Targets,
        Role::Snapshot => RoleType::Snapshot,
        Role::Timestamp => RoleType::Timestamp,
    }
}

type KeyId = tough::schema::decoded::Decoded<tough::schema::decoded::Hex>;

fn key_id(key: &Key) -> Result<KeyId, PublishError> {
    let tuf = key.signer().map_err(|e| PublishError::Sign(e.to_string()))?.tuf_key();
    tuf.key_id().map_err(|e| PublishError::Sign(e.to_string()))
}

fn add_key(root: &mut Root, key: &Key) -> Result<KeyId, PublishError> {
    let tuf = key.signer().map_err(|e| PublishError::Sign(e.to_string()))?.tuf_key();
    let id = key_id(key)?;
    root.keys.insert(id.clone(), tuf);
    Ok(id)
}

fn role_keys(keyids: Vec<KeyId>, threshold: usize) -> RoleKeys {
    let threshold = NonZeroU64::new(threshold as u64).unwrap_or(NonZeroU64::MIN);
    RoleKeys { keyids, threshold, _extra: HashMap::new() }
}

async fn sign<T: TufRole + serde::Serialize>(
    role: T,
    root: &Root,
    keys: Vec<Key>,
) -> Result<SignedRole<T>, PublishError> {
    let keys: Vec<Box<dyn KeySource>> = keys.into_iter().map(|key| Box::new(key) as Box<dyn KeySource>).collect();
    let signed = SignedRole::new(role, &KeyHolder::Root(root.clone()), &keys, &SystemRandom::new()).await;
    signed.map_err(|e| PublishError::Sign(e.to_string()))
}

fn metafile<T: TufRole + serde::Serialize>(version: NonZeroU64, signed: &SignedRole<T>) -> Metafile {
    Metafile {
        length: Some(*signed.length()),
        hashes: Some(Hashes { sha256: signed.sha256().to_vec().into(), _extra: HashMap::new() }),
        version,
        _extra: HashMap::new(),
    }
}

fn version_of(meta: &HashMap<String, Metafile>, name: &str, path: &Path) -> Result<u64, PublishError> {
    let found =
        meta.get(name).ok_or_else(|| PublishError::Malformed(path.into(), format!("it does not name {name}")))?;
    Ok(found.version.get())
}

fn file_error(path: &Path, cause: io::Error) -> PublishError {
    PublishError::File { path: path.into(), cause }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, PublishError> {
    let bytes = std::fs::read(path).map_err(|cause| file_error(path, cause))?;
    serde_json::from_slice(&bytes).map_err(|e| PublishError::Malformed(path.into(), e.to_string()))
}

fn verify<T: TufRole + serde::Serialize>(root: &Root, signed: &Signed<T>, path: &Path) -> Result<(), PublishError> {
    root.verify_role(signed).map_err(|e| PublishError::Unsigned(path.into(), e.to_string()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    replace(path, |file| file.write_all(bytes)).map_err(|cause| file_error(path, cause))
}

fn lock(folder: &Path) -> Result<std::fs::File, PublishError> {
    let path = folder.join(".publishing");
    let file = std::fs::File::create(&path).map_err(|cause| file_error(&path, cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(PublishError::Locked(folder.into())),
        Err(std::fs::TryLockError::Error(cause)) => Err(file_error(&path, cause)),
    }
}
