//! Keys at rest: Ed25519 in PKCS#8, encrypted with a passphrase (PBES2 with scrypt), as openssl reads and writes them.
//!
//! ```text
//! KEYS/root-1.key ..  may be carried away from here, each to another place: only `rotate` needs them
//! KEYS/targets.key snapshot.key timestamp.key
//! KEYS/root.json      what devices are given, and the repository's first root
//! ```

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use pkcs8::der::pem::PemLabel;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use std::io::Write;
use std::path::{Path, PathBuf};
use tough::key_source::KeySource;
use tough::sign::{Sign, parse_keypair};

/// The roles that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Says which keys the others have.
    Root,
    /// Says which bundles there are.
    Targets,
    /// Says which state of the targets is the newest.
    Snapshot,
    /// Says it again and again, so that devices know that nobody holds news back.
    Timestamp,
}

/// Every one.
pub const ROLES: [Role; 4] = [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp];

impl Role {
    /// As files and people name it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Targets => "targets",
            Role::Snapshot => "snapshot",
            Role::Timestamp => "timestamp",
        }
    }
}

/// Why a key cannot be used. A message holds its cause.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum KeyError {
    #[error("cannot read the key {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("{0} is there already; keys are never written over")]
    Exists(PathBuf),
    #[error("the key {0} cannot be decrypted: the passphrase is wrong, or the file is damaged")]
    Passphrase(PathBuf),
    #[error("the key {0} cannot be used: {1}")]
    Malformed(PathBuf, String),
    #[error("{0} holds no key of the role {1}")]
    None(PathBuf, &'static str),
    #[error("a key could not be made")]
    Generate,
}

/// A private key in memory.
pub struct Key(SecretDocument);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Key, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyError::Generate)?;
        SecretDocument::try_from(document.as_ref()).map(Key).map_err(|_| KeyError::Generate)
    }

    /// The same key once more.
    pub fn duplicate(&self) -> Key {
        Key(self.0.clone())
    }

    /// As `tough` signs with it.
    ///
    /// # Errors
    /// It is no key that signs.
    pub fn signer(&self) -> Result<Box<dyn Sign>, tough::error::Error> {
        Ok(Box::new(parse_keypair(self.0.as_bytes())?))
    }

    fn write(&self, path: &Path, passphrase: &str) -> Result<(), KeyError> {
        let malformed = |e: &dyn std::fmt::Display| KeyError::Malformed(path.into(), e.to_string());
        let info = PrivateKeyInfo::try_from(self.0.as_bytes()).map_err(|e| malformed(&e))?;
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut salt);
        rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut iv);
        // The hardest for which openssl sets memory aside unasked.
        let work = pkcs8::pkcs5::scrypt::Params::new(14, 8, 1, 32).map_err(|e| malformed(&e))?;
        let how = pkcs8::pkcs5::pbes2::Parameters::scrypt_aes256cbc(work, &salt, &iv).map_err(|e| malformed(&e))?;
        let sealed = info.encrypt_with_params(how, passphrase).map_err(|e| malformed(&e))?;
        let pem = sealed.to_pem(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF).map_err(|e| malformed(&e))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => KeyError::Exists(path.into()),
            _ => KeyError::Write(path.into(), e),
        })?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| KeyError::Write(path.into(), e))
    }

    fn read(path: &Path, passphrase: &str) -> Result<Key, KeyError> {
        let text = std::fs::read_to_string(path).map_err(|e| KeyError::Read(path.into(), e))?;
        let malformed = |e: &dyn std::fmt::Display| KeyError::Malformed(path.into(), e.to_string());
        let (label, sealed) = SecretDocument::from_pem(&text).map_err(|e| malformed(&e))?;
        if label != EncryptedPrivateKeyInfo::PEM_LABEL {
            return Err(malformed(&format!("it is a {label}; expected {}", EncryptedPrivateKeyInfo::PEM_LABEL)));
        }
        let info = EncryptedPrivateKeyInfo::try_from(sealed.as_bytes()).map_err(|e| malformed(&e))?;
        info.decrypt(passphrase).map(Key).map_err(|_| KeyError::Passphrase(path.into()))
    }
}

#[async_trait::async_trait]
impl KeySource for Key {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.signer()?)
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("keys are written by Key::write only".into())
    }
}

/// The folder that keys lie in.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    folder: PathBuf,
    passphrase: String,
}

impl KeyFolder {
    /// Nothing is read yet.
    pub fn new(folder: &Path, passphrase: &str) -> KeyFolder {
        KeyFolder { folder: folder.into(), passphrase: passphrase.into() }
    }

    /// `KEYS/root.json`.
    pub fn root_path(&self) -> PathBuf {
        self.folder.join("root.json")
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(&self) -> Result<(), KeyError> {
        std::fs::create_dir_all(&self.folder).map_err(|e| KeyError::Write(self.folder.clone(), e))
    }

    /// Keeps a key as the `number`-th of its role, counted from 1; the roles but root have one.
    ///
    /// # Errors
    /// It is there already, or cannot be written.
    pub fn keep(&self, role: Role, number: usize, key: &Key) -> Result<PathBuf, KeyError> {
        let path = self.path(role, number);
        key.write(&path, &self.passphrase).map(|()| path)
    }

    /// Sets the key of a role aside for the new one that takes its place.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn retire(&self, role: Role, number: usize, version: u64) -> Result<(), KeyError> {
        let path = self.path(role, number);
        let aside = path.with_extension(format!("until-root-{version}.key"));
        match std::fs::rename(&path, aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(KeyError::Write(path, e)),
            _ => Ok(()),
        }
    }

    fn path(&self, role: Role, number: usize) -> PathBuf {
        self.folder.join(match role {
            Role::Root => format!("root-{number}.key"),
            role => format!("{}.key", role.name()),
        })
    }

    /// The keys of a role that lie here: of root all that are there, of another role its one.
    ///
    /// # Errors
    /// There is none, or one cannot be used.
    pub fn read(&self, role: Role) -> Result<Vec<Key>, KeyError> {
        let paths: Vec<PathBuf> = match role {
            Role::Root => (1..=16).map(|n| self.path(role, n)).filter(|path| path.exists()).collect(),
            role => vec![self.path(role, 1)],
        };
        if paths.is_empty() {
            return Err(KeyError::None(self.folder.clone(), role.name()));
        }
        paths.iter().map(|path| Key::read(path, &self.passphrase)).collect()
    }
}
