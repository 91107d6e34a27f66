//! Repositories that nobody honest would publish, signed by keys of our own.

use ckaad_update::offer::{CUSTOM, ISSUED, Offer};
use ckaad_update::publish::Key;
use ckaad_update::remote::{Remote, RemoteConfig};
use ckaad_update::trust::{Catalogue, Trust, TrustError};
use jiff::{SignedDuration, Timestamp as Time};
use semver::{Version, VersionReq};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sigstore_tuf::{FileStore, Repository, Updater};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tough::TargetName;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Signed, Snapshot, Target, Targets, Timestamp,
};

pub const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// The roles as they are to be signed, and the keys.
pub struct Forge {
    folder: TempDir,
    pub keys: HashMap<RoleType, Vec<Key>>,
    pub root: Root,
    pub targets: Targets,
    pub snapshot: Snapshot,
    pub timestamp: Timestamp,
    /// Of the versions that other roles promise, where it is another one than there is.
    pub promised_snapshot: Option<u64>,
    pub promised_targets: Option<u64>,
}

pub fn version(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap()
}

pub fn in_days(days: i64) -> Time {
    let then = Time::now() + SignedDuration::from_hours(24 * days);
    Time::from_second(then.as_second()).unwrap()
}

fn copy(key: &Key) -> Key {
    key.duplicate()
}

impl Forge {
    /// A repository without a fault, with one bundle.
    pub fn new() -> Forge {
        let (spec, one) = ("1.0.0".to_owned(), version(1));
        let root = Root {
            spec_version: spec.clone(),
            consistent_snapshot: true,
            version: one,
            expires: in_days(700),
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        let mut targets = Targets::new(spec.clone(), one, in_days(180));
        targets.delegations = None;
        let mut timestamp = Timestamp::new(spec.clone(), one, in_days(30));
        timestamp._extra.insert(ISSUED.into(), json!(in_days(0).to_string()));
        let mut forge = Forge {
            folder: tempfile::tempdir().unwrap(),
            keys: HashMap::new(),
            root,
            targets,
            snapshot: Snapshot::new(spec, one, in_days(180)),
            timestamp,
            promised_snapshot: None,
            promised_targets: None,
        };
        for role in ROLES {
            forge.set_keys(role, 1, 1);
        }
        forge.add_target("press-1.0.0.ckaad", b"a bundle", 1);
        std::fs::create_dir_all(forge.path().join("metadata")).unwrap();
        std::fs::create_dir_all(forge.path().join("targets")).unwrap();
        forge
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn metadata(&self, name: &str) -> PathBuf {
        self.path().join("metadata").join(name)
    }

    /// New keys of a role.
    pub fn set_keys(&mut self, role: RoleType, count: usize, threshold: u64) {
        let keys: Vec<Key> = (0..count).map(|_| Key::generate().unwrap()).collect();
        let ids = keys.iter().map(|key| {
            let tuf = key.signer().unwrap().tuf_key();
            let id = tuf.key_id().unwrap();
            self.root.keys.insert(id.clone(), tuf);
            id
        });
        let keyids = ids.collect();
        self.root.roles.insert(role, RoleKeys { keyids, threshold: version(threshold), _extra: HashMap::new() });
        self.keys.insert(role, keys);
    }

    pub fn offer(&self, sequence: u64) -> Offer {
        Offer {
            format: 1,
            model: "press".into(),
            version: Version::new(sequence, 0, 0),
            sequence,
            group: String::new(),
            hardware: String::new(),
            agent: VersionReq::STAR,
            percent: 100,
        }
    }

    pub fn add_target(&mut self, name: &str, bytes: &[u8], sequence: u64) {
        let custom = serde_json::to_value(self.offer(sequence)).unwrap();
        self.add_target_with(name, bytes, custom);
    }

    pub fn add_target_with(&mut self, name: &str, bytes: &[u8], custom: Value) {
        let hash = Sha256::digest(bytes).to_vec();
        let target = Target {
            length: bytes.len() as u64,
            hashes: Hashes { sha256: hash.clone().into(), _extra: HashMap::new() },
            custom: HashMap::from([(CUSTOM.to_owned(), custom)]),
            _extra: HashMap::new(),
        };
        self.targets.targets.insert(TargetName::new(name).unwrap(), target);
        if !name.contains(['/', '%', '\0']) && name.len() < 150 {
            let path = self.path().join("targets");
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join(format!("{}.{name}", hex::encode(hash))), bytes).unwrap();
        }
    }

    /// All roles but root one version further.
    pub fn step(&mut self) {
        self.targets.version = self.targets.version.saturating_add(1);
        self.snapshot.version = self.snapshot.version.saturating_add(1);
        self.timestamp.version = self.timestamp.version.saturating_add(1);
    }

    async fn sign<T: Role + serde::Serialize + Clone>(&self, role: T, holder: &Root, keys: &[Key]) -> SignedRole<T> {
        let sources: Vec<Box<dyn KeySource>> = keys.iter().map(|k| Box::new(copy(k)) as Box<dyn KeySource>).collect();
        let rng = aws_lc_rs::rand::SystemRandom::new();
        SignedRole::new(role, &KeyHolder::Root(holder.clone()), &sources, &rng).await.unwrap()
    }

    /// Signs with the keys that there are, and writes all files. `roots`: the keys of older roots sign too.
    pub async fn write(&mut self) {
        self.write_root(&[]).await;
        self.write_targets().await;
    }

    pub async fn write_root(&self, older: &[(&Root, &[Key])]) {
        let mut signed = self.sign(self.root.clone(), &self.root, &self.keys[&RoleType::Root]).await;
        for (root, keys) in older {
            let by_old = self.sign(self.root.clone(), root, keys).await;
            signed = signed.add_old_signatures(by_old.signed().signatures.clone()).unwrap();
        }
        std::fs::write(self.metadata(&format!("{}.root.json", self.root.version)), signed.buffer()).unwrap();
    }

    pub async fn write_targets(&mut self) {
        // As many keys as there are: a threshold that is not met is written all the same by `unsigned`.
        let root = self.root.clone();
        let targets = self.sign(self.targets.clone(), &root, &self.keys[&RoleType::Targets]).await;
        self.put(&format!("{}.targets.json", self.targets.version), targets.buffer());
        let promised = self.promised_targets.map_or(self.targets.version, version);
        self.snapshot.meta = HashMap::from([("targets.json".to_owned(), metafile(promised, &targets))]);
        let snapshot = self.sign(self.snapshot.clone(), &root, &self.keys[&RoleType::Snapshot]).await;
        self.put(&format!("{}.snapshot.json", self.snapshot.version), snapshot.buffer());
        let promised = self.promised_snapshot.map_or(self.snapshot.version, version);
        self.timestamp.meta = HashMap::from([("snapshot.json".to_owned(), metafile(promised, &snapshot))]);
        let timestamp = self.sign(self.timestamp.clone(), &root, &self.keys[&RoleType::Timestamp]).await;
        self.put("timestamp.json", timestamp.buffer());
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.metadata(name), bytes).unwrap();
    }

    /// Changes a file after it was signed.
    pub fn spoil(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.metadata(name);
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    }

    /// What a device begins with.
    pub fn device(&self) -> Device {
        let root = std::fs::read(self.metadata("1.root.json")).unwrap();
        Device {
            trust: Trust::from_root(&self.metadata("1.root.json")).unwrap(),
            remote: Remote::new(&folder_config(self.path())).unwrap(),
            system: Time::now(),
            second: Some(SecondJudge {
                root,
                folder: self.path().into(),
                store: Arc::new(tempfile::tempdir().unwrap()),
            }),
        }
    }
}

pub fn folder_config(path: &Path) -> RemoteConfig {
    RemoteConfig {
        url: url::Url::from_directory_path(path).unwrap(),
        ca_file: None,
        proxy: None,
        patience: Duration::from_secs(5),
        rate: None,
    }
}

fn metafile<T: Role + serde::Serialize>(version: NonZeroU64, signed: &SignedRole<T>) -> Metafile {
    let hashes = Some(Hashes { sha256: signed.sha256().to_vec().into(), _extra: HashMap::new() });
    Metafile { length: Some(*signed.length()), hashes, version, _extra: HashMap::new() }
}

/// sigstore-tuf, another implementation, with a memory of its own.
#[derive(Clone)]
pub struct SecondJudge {
    root: Vec<u8>,
    folder: PathBuf,
    store: Arc<TempDir>,
}

struct Folder(PathBuf);

type FetchFuture<'a> = Pin<Box<dyn Future<Output = sigstore_tuf::Result<Option<Vec<u8>>>> + Send + 'a>>;

impl Repository for Folder {
    fn fetch_metadata<'a>(&'a self, name: &'a str, most: u64) -> FetchFuture<'a> {
        let read = std::fs::read(self.0.join("metadata").join(name)).ok();
        Box::pin(async move {
            match read {
                Some(bytes) if bytes.len() as u64 > most => Err(sigstore_tuf::Error::transport("too long")),
                read => Ok(read),
            }
        })
    }

    fn fetch_target<'a>(&'a self, _: &'a str, _: u64) -> FetchFuture<'a> {
        Box::pin(async { Ok(None) })
    }
}

impl SecondJudge {
    async fn look(&self, now: Time) -> Result<(), String> {
        let updater = Updater::new(Folder(self.folder.clone()), &self.root).map_err(|e| e.to_string())?;
        let mut updater = updater.with_store(FileStore::new(self.store.path()));
        updater.refresh(now).await.map_err(|e| e.to_string())
    }
}

/// A device that looks at the repository again and again.
#[derive(Clone)]
pub struct Device {
    /// Must be of one mind with us; none where what is refused is our own rule or the line's fault.
    pub second: Option<SecondJudge>,
    pub trust: Trust,
    pub remote: Remote,
    pub system: Time,
}

impl Device {
    pub async fn look(&mut self) -> Result<Catalogue, TrustError> {
        let ours = self.trust.refresh(&self.remote, self.system).await;
        if let Some(second) = &self.second {
            let theirs = second.look(self.trust.clock(self.system).now()).await;
            assert_eq!(ours.is_ok(), theirs.is_ok(), "the second judge says otherwise: {ours:?} and {theirs:?}");
        }
        ours
    }

    /// The sentence of a refusal.
    pub async fn refusal(&mut self) -> String {
        match self.look().await {
            Ok(catalogue) => panic!("it was taken: {catalogue:?}"),
            Err(e) => e.to_string(),
        }
    }
}

pub fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Signed<T> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
