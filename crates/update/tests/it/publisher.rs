//! From keys to a repository that devices believe, and everything that a publisher does to it afterwards.

use crate::forge::{Device, folder_config};
use ckaad_testing::{demo_bundle, program};
use ckaad_update::download::Parts;
use ckaad_update::publish::{KeyFolder, Publication, PublishError, Repository, Role};
use ckaad_update::remote::Remote;
use ckaad_update::trust::Trust;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PASSPHRASE: &str = "four words and more";

pub struct Publisher {
    pub folder: TempDir,
    pub keys: KeyFolder,
}

impl Publisher {
    pub async fn new(root_keys: usize, threshold: usize) -> Publisher {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(&folder.path().join("keys"), PASSPHRASE);
        Repository::init_keys(&keys, root_keys, threshold).await.unwrap();
        Publisher { folder, keys }
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub fn open(&self) -> Result<Repository, PublishError> {
        Repository::open(&self.repository(), &self.keys)
    }

    pub async fn publish(&self, what: &Publication) -> Result<String, PublishError> {
        Ok(self.open()?.publish(&demo_bundle(), what, &self.keys).await?.target)
    }

    fn device(&self) -> Device {
        Device {
            trust: Trust::from_root(&self.keys.root_path()).unwrap(),
            remote: Remote::new(&folder_config(&self.repository())).unwrap(),
            system: jiff::Timestamp::now(),
            second: None,
        }
    }
}

#[tokio::test]
async fn what_is_published_arrives() {
    let publisher = Publisher::new(1, 1).await;
    let what = Publication { group: "berlin".into(), hardware: "orin".into(), percent: 20, ..Publication::default() };
    let target = publisher.publish(&what).await.unwrap();
    let mut device = publisher.device();
    let catalogue = device.look().await.unwrap();
    let candidate = &catalogue.candidates[0];
    assert_eq!((candidate.target.clone(), candidate.offer.sequence, candidate.offer.percent), (target, 1, 20));
    let parts = tempfile::tempdir().unwrap();
    let path = Parts::new(parts.path().into()).fetch(&device.remote, candidate, |_| {}).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read(demo_bundle()).unwrap());
    // The same bundle to more devices: the same publication.
    publisher.publish(&Publication { percent: 100, ..what }).await.unwrap();
    let catalogue = device.look().await.unwrap();
    assert_eq!(catalogue.candidates.len(), 1);
    assert_eq!((catalogue.candidates[0].offer.percent, catalogue.candidates[0].offer.sequence), (100, 1));
    // Under another model's name it is another publication.
    publisher.publish(&Publication { model: "lid".into(), ..Publication::default() }).await.unwrap();
    let catalogue = device.look().await.unwrap();
    let seen: Vec<(u64, &str)> =
        catalogue.candidates.iter().map(|c| (c.offer.sequence, c.offer.model.as_str())).collect();
    assert_eq!(seen, [(2, "lid"), (1, "demo")]);
    assert_eq!(publisher.open().unwrap().status().bundles.len(), 2);
}

#[tokio::test]
async fn revoked_bundles_are_gone_and_their_numbers_are_not_given_again() {
    let publisher = Publisher::new(1, 1).await;
    let target = publisher.publish(&Publication::default()).await.unwrap();
    let revoked = publisher.open().unwrap().revoke(&target, &publisher.keys).await.unwrap();
    assert_eq!(revoked, [target]);
    let mut device = publisher.device();
    let catalogue = device.look().await.unwrap();
    assert!(catalogue.candidates.is_empty() && catalogue.revoked.len() == 1);
    let error = publisher.open().unwrap().revoke("9.9.9", &publisher.keys).await.unwrap_err();
    assert_eq!(error.to_string(), "the repository has no bundle 9.9.9");
    publisher.publish(&Publication::default()).await.unwrap();
    let catalogue = device.look().await.unwrap();
    assert_eq!((catalogue.candidates[0].offer.sequence, catalogue.revoked.len()), (2, 0));
}

#[tokio::test]
async fn every_role_can_be_rotated_and_devices_follow() {
    let publisher = Publisher::new(3, 2).await;
    publisher.publish(&Publication::default()).await.unwrap();
    let mut old = publisher.device();
    old.look().await.unwrap();
    for (n, role) in
        [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Root, Role::Timestamp].into_iter().enumerate()
    {
        let version = publisher.open().unwrap().rotate(role, &publisher.keys).await.unwrap();
        assert_eq!(version, n as u64 + 2);
        let (mut fresh, follows) = (publisher.device(), old.look().await.unwrap());
        assert_eq!(follows.versions[0], version, "{role:?}");
        assert_eq!(fresh.look().await.unwrap().candidates, follows.candidates);
        publisher.open().unwrap().resign(false, &publisher.keys).await.unwrap();
        old.look().await.unwrap();
    }
    // A key that was lost.
    std::fs::remove_file(publisher.folder.path().join("keys/targets.key")).unwrap();
    publisher.open().unwrap().rotate(Role::Targets, &publisher.keys).await.unwrap();
    old.look().await.unwrap();
    // One of three root keys that two must sign with.
    std::fs::remove_file(publisher.folder.path().join("keys/root-2.key")).unwrap();
    std::fs::remove_file(publisher.folder.path().join("keys/root-3.key")).unwrap();
    let error = publisher.open().unwrap().rotate(Role::Targets, &publisher.keys).await.unwrap_err().to_string();
    assert!(error.contains("1 keys") && error.contains("as many as the root's threshold"), "{error}");
    old.look().await.unwrap();
}

#[tokio::test]
async fn resigning_needs_the_keys_of_what_it_signs_and_no_others() {
    let publisher = Publisher::new(1, 1).await;
    publisher.publish(&Publication::default()).await.unwrap();
    for key in ["root-1", "targets", "snapshot"] {
        std::fs::remove_file(publisher.folder.path().join(format!("keys/{key}.key"))).unwrap();
    }
    let mut device = publisher.device();
    let before = device.look().await.unwrap().versions;
    publisher.open().unwrap().resign(false, &publisher.keys).await.unwrap();
    let after = device.look().await.unwrap().versions;
    assert_eq!(after, [before[0], before[1] + 1, before[2], before[3]]);
    let error = publisher.open().unwrap().resign(true, &publisher.keys).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read the key") && error.contains("targets.key"), "{error}");
}

#[tokio::test]
async fn two_publishers_do_not_overwrite_each_other() {
    let publisher = Publisher::new(1, 1).await;
    publisher.publish(&Publication::default()).await.unwrap();
    let mine = publisher.open().unwrap();
    assert!(matches!(publisher.open(), Err(PublishError::Locked(_))));
    // Somebody who does not know our lock, on a shared disk or by a sync.
    let path = publisher.repository().join("metadata/timestamp.json");
    let theirs = [std::fs::read(&path).unwrap(), b"\n".to_vec()].concat();
    std::fs::write(&path, &theirs).unwrap();
    let error = mine.publish(&demo_bundle(), &Publication::default(), &publisher.keys).await.unwrap_err();
    assert!(matches!(error, PublishError::MovedOn(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), theirs);
    publisher.device().look().await.unwrap();
}

#[tokio::test]
async fn wrong_values_keys_and_folders_are_sentences_and_change_nothing() {
    let publisher = Publisher::new(1, 1).await;
    let repository = publisher.repository();
    let values = [
        (Publication { percent: 0, ..Publication::default() }, "1 to 100 %"),
        (Publication { model: "../x".into(), ..Publication::default() }, "up to 64 of a-z"),
        (Publication { group: "Ä".into(), ..Publication::default() }, "up to 64 of a-z"),
    ];
    for (what, sentence) in values {
        let error = publisher.publish(&what).await.unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }
    let error = publisher.open().unwrap().publish(Path::new("/nope"), &Publication::default(), &publisher.keys).await;
    assert!(error.unwrap_err().to_string().contains("/nope"));
    assert!(!repository.join("metadata/timestamp.json").exists());
    publisher.publish(&Publication::default()).await.unwrap();
    // Another's keys.
    let other = Publisher::new(1, 1).await;
    let error = Repository::open(&repository, &other.keys).err().unwrap().to_string();
    assert!(error.contains("are not those of the repository"), "{error}");
    let (nowhere, no_keys) = (publisher.folder.path().join("nowhere"), publisher.folder.path().join("no keys"));
    assert!(Repository::open(&nowhere, &KeyFolder::new(&no_keys, PASSPHRASE)).is_err());
    assert!(!nowhere.exists(), "a repository was begun without keys");
    // The wrong passphrase, and keys are never written over.
    let wrong = KeyFolder::new(&publisher.folder.path().join("keys"), "guessed");
    let error = Repository::open(&repository, &wrong).unwrap().resign(false, &wrong).await.unwrap_err().to_string();
    assert!(error.contains("the passphrase is wrong"), "{error}");
    assert!(Repository::init_keys(&wrong, 1, 1).await.unwrap_err().to_string().contains("never written over"));
    assert!(Repository::init_keys(&wrong, 2, 3).await.unwrap_err().to_string().contains("the threshold"));
}

#[tokio::test]
async fn symlink_in_the_publishers_folder() {
    let publisher = Publisher::new(1, 1).await;
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(publisher.repository()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), publisher.repository().join("targets")).unwrap();
    assert!(matches!(publisher.open(), Err(PublishError::Link(_))));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn keys_are_encrypted_private_and_openssl_reads_them() {
    use std::os::unix::fs::PermissionsExt;
    let publisher = Publisher::new(1, 1).await;
    let path = publisher.folder.path().join("keys/targets.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let openssl = |passphrase: &str| {
        let output = program("openssl")
            .args(["pkey", "-noout", "-text", "-passin", &format!("pass:{passphrase}"), "-in"])
            .arg(&path)
            .output()
            .expect("openssl starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(openssl(PASSPHRASE).1.contains("ED25519"), "{:?}", openssl(PASSPHRASE));
    assert!(!openssl("guessed").0);
}
