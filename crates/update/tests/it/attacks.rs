//! What an attacker who controls the repository, the network or some of the keys can serve, one test each. Every one is refused
//! with a sentence of its own, and the good repository right after it is taken.

use crate::forge::{Device, Forge, in_days, parse, version};
use ckaad_update::offer::{CUSTOM, ISSUED, REVOKED};
use ckaad_update::publish::Key;
use jiff::{SignedDuration, Timestamp as Time};
use serde_json::json;
use tough::schema::{RoleType, Root};

/// A good repository that a device has seen, one step further.
async fn seen() -> (Forge, Device) {
    let mut forge = Forge::new();
    forge.write().await;
    let mut device = forge.device();
    assert_eq!(device.look().await.unwrap().candidates.len(), 1);
    forge.add_target("press-2.0.0.ckaad", b"the next bundle", 2);
    forge.step();
    (forge, device)
}

/// The sentence, and that nothing of it is in the way of the good repository behind it.
async fn refused(forge: &mut Forge, device: &mut Device, sentence: &str) {
    let said = device.refusal().await;
    assert!(said.contains(sentence), "{said:?} is not {sentence:?}");
    assert!(!said.contains('\n'), "{said}");
    // The publisher mends it.
    forge.targets.version = forge.targets.version.saturating_add(20);
    forge.snapshot.version = forge.snapshot.version.saturating_add(20);
    forge.timestamp.version = forge.timestamp.version.saturating_add(20);
    forge.write_targets().await;
    let catalogue = device.look().await.unwrap_or_else(|e| panic!("after {said:?} the good one is refused: {e}"));
    assert!(!catalogue.candidates.is_empty());
}

#[tokio::test]
async fn the_good_repository_is_taken() {
    let (mut forge, mut device) = seen().await;
    forge.write().await;
    let catalogue = device.look().await.unwrap();
    let sequences: Vec<u64> = catalogue.candidates.iter().map(|c| c.offer.sequence).collect();
    assert_eq!((sequences, catalogue.versions), (vec![2, 1], [1, 2, 2, 2]));
    assert!(!catalogue.stale && catalogue.clock_behind.is_none() && catalogue.refused.is_empty());
}

#[tokio::test]
async fn unsigned() {
    for (role, file) in
        [("timestamp", "timestamp.json"), ("snapshot", "2.snapshot.json"), ("targets", "2.targets.json")]
    {
        let (mut forge, mut device) = seen().await;
        forge.write().await;
        forge.spoil(file, |v| v["signatures"] = json!([]));
        // Behind the timestamp the digest is looked at first.
        let sentence = match role {
            "timestamp" => format!("its {role} is signed by 0 of the 1 keys"),
            _ => format!("its 2.{role} has another digest"),
        };
        if role == "timestamp" {
            refused(&mut forge, &mut device, &sentence).await;
        } else {
            let said = device.refusal().await;
            assert!(said.contains("digest") || said.contains("longer than"), "{said}");
        }
    }
}

#[tokio::test]
async fn another_key_than_the_role_has() {
    for role in [RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets] {
        let (mut forge, mut device) = seen().await;
        // Signed by a key that the root of the device does not give to this role.
        let (root, keys) = (forge.root.clone(), forge.keys[&role].iter().map(Key::duplicate).collect::<Vec<_>>());
        forge.set_keys(role, 1, 1);
        forge.write_targets().await;
        (forge.root, _) = (root, forge.keys.insert(role, keys));
        refused(&mut forge, &mut device, &format!("its {role} is signed by 0 of the 1 keys that are needed")).await;
    }
}

#[tokio::test]
async fn one_key_twice_is_one_signature() {
    let mut forge = Forge::new();
    forge.set_keys(RoleType::Timestamp, 2, 2);
    forge.write().await;
    let mut device = forge.device();
    device.look().await.unwrap();
    forge.step();
    forge.write_targets().await;
    // Under one key id.
    forge.spoil("timestamp.json", |v| v["signatures"][1] = v["signatures"][0].clone());
    assert!(device.refusal().await.contains("its timestamp has a signature twice by one key"));
    // Under a second id: the root that says so is refused, for an id is the key's digest.
    let old = (forge.root.clone(), forge.keys[&RoleType::Root].iter().map(Key::duplicate).collect::<Vec<_>>());
    forge.root.version = version(2);
    forge.write_root(&[(&old.0, &old.1)]).await;
    forge.spoil("2.root.json", |v| {
        let (id, key) =
            v["signed"]["keys"].as_object().unwrap().iter().next().map(|(i, k)| (i.clone(), k.clone())).unwrap();
        v["signed"]["keys"][format!("{}{}", &id[1..], "0")] = key;
    });
    let said = device.refusal().await;
    assert!(said.contains("its root cannot be read"), "{said}");
}

#[tokio::test]
async fn too_few_of_several_keys() {
    let mut forge = Forge::new();
    forge.set_keys(RoleType::Targets, 3, 2);
    forge.write().await;
    let mut device = forge.device();
    device.look().await.unwrap();
    forge.step();
    forge.write_targets().await;
    forge.spoil("2.targets.json", |v| {
        v["signatures"].as_array_mut().unwrap().truncate(1);
    });
    // What is spoiled has another digest; with it signed anew, the threshold speaks.
    let said = device.refusal().await;
    assert!(said.contains("targets"), "{said}");
    let mut forge2 = Forge::new();
    forge2.set_keys(RoleType::Timestamp, 3, 2);
    forge2.write().await;
    let mut device = forge2.device();
    device.look().await.unwrap();
    forge2.step();
    forge2.write_targets().await;
    forge2.spoil("timestamp.json", |v| v["signatures"].as_array_mut().unwrap().truncate(1));
    refused(&mut forge2, &mut device, "its timestamp is signed by 1 of the 2 keys that are needed").await;
}

#[tokio::test]
async fn expired() {
    for role in [RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets] {
        let (mut forge, mut device) = seen().await;
        let past = in_days(-1);
        match role {
            RoleType::Timestamp => {
                forge.timestamp.expires = past;
                forge.timestamp._extra.insert(ISSUED.into(), json!(in_days(-31).to_string()));
            }
            RoleType::Snapshot => forge.snapshot.expires = past,
            _ => forge.targets.expires = past,
        }
        forge.write_targets().await;
        let said = device.refusal().await;
        assert!(said.contains(&format!("its {role} expired at {past}")), "{said}");
        for expires in [&mut forge.snapshot.expires, &mut forge.targets.expires, &mut forge.timestamp.expires] {
            *expires = in_days(30);
        }
        refused(&mut forge, &mut device, "expired").await;
    }
    let (mut forge, mut device) = seen().await;
    let old = (forge.root.clone(), forge.keys[&RoleType::Root].iter().map(Key::duplicate).collect::<Vec<_>>());
    forge.root.version = version(2);
    forge.root.expires = in_days(-1);
    forge.write_root(&[(&old.0, &old.1)]).await;
    forge.write_targets().await;
    assert!(device.refusal().await.contains("its root expired"));
}

/// Found by the conformance suite: what was refused as expired was kept all the same, as the floor under later versions.
#[tokio::test]
async fn what_has_expired_is_no_floor() {
    let kept = |device: &Device| -> Vec<String> { device.trust.metadata().map(|(_, text)| text.to_owned()).collect() };
    // Root, timestamp, snapshot and targets: which are as they were.
    for (role, same) in [
        (RoleType::Timestamp, [true, true, true, true]),
        (RoleType::Snapshot, [true, false, true, true]),
        (RoleType::Targets, [true, false, false, true]),
    ] {
        let (mut forge, mut device) = seen().await;
        let before = kept(&device);
        match role {
            RoleType::Timestamp => forge.timestamp.expires = in_days(-1),
            RoleType::Snapshot => forge.snapshot.expires = in_days(-1),
            _ => forge.targets.expires = in_days(-1),
        }
        forge.timestamp._extra.remove(ISSUED);
        forge.write_targets().await;
        assert!(device.refusal().await.contains(&format!("its {role} expired at")));
        let unchanged: Vec<bool> = before.iter().zip(kept(&device)).map(|(before, now)| *before == now).collect();
        assert_eq!(unchanged, same, "{role}");
    }
}

/// Found by the conformance suite: a timestamp that said something else under its old version was followed, and what it led to became the floor.
#[tokio::test]
async fn a_timestamp_that_changes_under_its_version_is_not_followed() {
    let (mut forge, mut device) = seen().await;
    // A rule of ours.
    device.second = None;
    let before = device.trust.clone();
    forge.timestamp.version = version(1);
    forge.write_targets().await;
    let sentence = "its timestamp 1 says something else than when it was seen first";
    let said = device.refusal().await;
    assert!(said.contains(sentence), "{said}");
    assert_eq!(device.trust, before);
    refused(&mut forge, &mut device, sentence).await;
}

#[tokio::test]
async fn rollback_of_each_role() {
    let (mut forge, device) = seen().await;
    forge.write().await;
    // A device that has seen version 2 of all.
    let mut ahead = device.clone();
    ahead.look().await.unwrap();
    let ahead = ahead;

    let mut of_timestamp = ahead.clone();
    forge.timestamp.version = version(1);
    forge.write_targets().await;
    refused(&mut forge, &mut of_timestamp, "its timestamp has version 1, after version 2 was seen (a rollback)").await;

    let (mut forge, mut of_snapshot) = seen().await;
    forge.write().await;
    of_snapshot.look().await.unwrap();
    forge.timestamp.version = version(3);
    forge.snapshot.version = version(1);
    forge.write_targets().await;
    refused(&mut forge, &mut of_snapshot, "its snapshot has version 1, after version 2 was seen (a rollback)").await;

    let (mut forge, mut of_targets) = seen().await;
    forge.write().await;
    of_targets.look().await.unwrap();
    forge.timestamp.version = version(3);
    forge.snapshot.version = version(3);
    forge.targets.version = version(1);
    forge.write_targets().await;
    refused(&mut forge, &mut of_targets, "its targets has version 1, after version 2 was seen (a rollback)").await;
}

#[tokio::test]
async fn root_that_skips_a_version_or_repeats_one() {
    for number in [1, 3] {
        let (mut forge, mut device) = seen().await;
        let old = (forge.root.clone(), forge.keys[&RoleType::Root].iter().map(Key::duplicate).collect::<Vec<_>>());
        forge.write_targets().await;
        forge.root.version = version(number);
        forge.write_root(&[(&old.0, &old.1)]).await;
        let served = std::fs::read(forge.metadata(&format!("{number}.root.json"))).unwrap();
        forge.put("2.root.json", &served);
        let said = device.refusal().await;
        assert!(said.contains(&format!("its root {number} does not follow the root 1")), "{said}");
    }
}

#[tokio::test]
async fn a_root_that_the_old_keys_did_not_sign() {
    let (mut forge, mut device) = seen().await;
    forge.write_targets().await;
    forge.set_keys(RoleType::Root, 1, 1);
    forge.root.version = version(2);
    forge.write_root(&[]).await;
    assert!(device.refusal().await.contains("its root is signed by 0 of the 1 keys"));
}

#[tokio::test]
async fn a_revoked_key_signs_nothing_any_more() {
    let (mut forge, mut device) = seen().await;
    let root = (forge.root.clone(), forge.keys[&RoleType::Root].iter().map(Key::duplicate).collect::<Vec<_>>());
    let stolen: Vec<Key> = forge.keys[&RoleType::Timestamp].iter().map(Key::duplicate).collect();
    forge.set_keys(RoleType::Timestamp, 1, 1);
    forge.root.version = version(2);
    forge.write_root(&[(&root.0, &root.1)]).await;
    forge.write_targets().await;
    device.look().await.unwrap();
    // The thief serves a timestamp of the old key.
    let (new_root, new_keys) = (forge.root.clone(), forge.keys.insert(RoleType::Timestamp, stolen).unwrap());
    forge.root = root.0.clone();
    forge.step();
    forge.write_targets().await;
    forge.root = new_root;
    forge.keys.insert(RoleType::Timestamp, new_keys);
    refused(&mut forge, &mut device, "its timestamp is signed by 0 of the 1 keys that are needed").await;
}

#[tokio::test]
async fn new_root_survives_a_bad_timestamp() {
    let (mut forge, mut device) = seen().await;
    let root = (forge.root.clone(), forge.keys[&RoleType::Root].iter().map(Key::duplicate).collect::<Vec<_>>());
    forge.write_targets().await;
    let by_the_old_key = std::fs::read(forge.metadata("timestamp.json")).unwrap();
    forge.set_keys(RoleType::Timestamp, 1, 1);
    forge.root.version = version(2);
    forge.write_root(&[(&root.0, &root.1)]).await;
    assert!(device.refusal().await.contains("its timestamp is signed by 0 of the 1 keys"));
    // Whoever takes the new root away again does not bring the old key back.
    std::fs::remove_file(forge.metadata("2.root.json")).unwrap();
    forge.put("timestamp.json", &by_the_old_key);
    assert!(device.refusal().await.contains("its timestamp is signed by 0 of the 1 keys"));
    assert_eq!(device.trust.root().unwrap().0, 2);
}

#[tokio::test]
async fn frozen() {
    // The same repository for ever: it is taken until its timestamp expires, and then no more.
    let (forge, mut device) = seen().await;
    device.look().await.unwrap();
    device.system = Time::now() + SignedDuration::from_hours(24 * 31);
    assert!(device.refusal().await.contains("its timestamp expired"));
    drop(forge);
}

#[tokio::test]
async fn a_mix_of_two_states() {
    let (mut forge, mut device) = seen().await;
    forge.write().await;
    let old = std::fs::read(forge.metadata("2.targets.json")).unwrap();
    forge.step();
    forge.add_target("press-3.0.0.ckaad", b"one more", 3);
    forge.write_targets().await;
    forge.put("3.targets.json", &old);
    let said = device.refusal().await;
    assert!(said.contains("another digest than was promised") || said.contains("longer than"), "{said}");
    // The snapshot promises a version that its file does not have.
    let (mut forge, mut device) = seen().await;
    forge.promised_targets = Some(7);
    forge.write_targets().await;
    std::fs::copy(forge.metadata("2.targets.json"), forge.metadata("7.targets.json")).unwrap();
    let said = device.refusal().await;
    assert!(said.contains("its targets has version 2, where version 7 was promised"), "{said}");
    let (mut forge, mut device) = seen().await;
    forge.promised_snapshot = Some(9);
    forge.write_targets().await;
    std::fs::copy(forge.metadata("2.snapshot.json"), forge.metadata("9.snapshot.json")).unwrap();
    let said = device.refusal().await;
    assert!(said.contains("its snapshot has version 2, where version 9 was promised"), "{said}");
}

#[tokio::test]
async fn huge_metadata() {
    for (file, limit) in [("timestamp.json", 16 << 10), ("2.root.json", 64 << 10)] {
        let (mut forge, mut device) = seen().await;
        forge.write_targets().await;
        forge.put(file, &vec![b' '; limit + 1]);
        let role = if file == "timestamp.json" { "timestamp" } else { "root" };
        let said = device.refusal().await;
        assert_eq!(said, format!("the update repository is refused: its {role} is longer than {limit} bytes"));
    }
}

#[tokio::test]
async fn a_portal_in_place_of_the_repository() {
    let (mut forge, mut device) = seen().await;
    forge.write_targets().await;
    forge.put("timestamp.json", b"<html><body>Please log in</body></html>");
    refused(&mut forge, &mut device, "a page of HTML in its place comes from a portal that wants a login").await;
}

#[tokio::test]
async fn delegation_is_refused() {
    let (mut forge, mut device) = seen().await;
    // Others follow delegations.
    device.second = None;
    let mut delegations = tough::schema::Delegations::new();
    let key = Key::generate().unwrap().signer().unwrap().tuf_key();
    let id = key.key_id().unwrap();
    delegations.keys.insert(id.clone(), key);
    delegations.roles.push(tough::schema::DelegatedRole {
        name: "somebody".into(),
        keyids: vec![id],
        threshold: version(1),
        paths: tough::schema::PathSet::Paths(vec![tough::schema::PathPattern::new("*").unwrap()]),
        terminating: false,
        targets: None,
    });
    forge.targets.delegations = Some(delegations);
    forge.write_targets().await;
    let said = device.refusal().await;
    assert!(said.contains("somebody"), "{said}");
    forge.targets.delegations = None;
    refused(&mut forge, &mut device, "somebody").await;
}

#[tokio::test]
async fn hostile_target_names_and_words_are_no_offers_and_hide_none() {
    let (mut forge, mut device) = seen().await;
    for name in ["/etc/cron.d/x", "a/../../b", "%2e%2e%2fx", &"x".repeat(300), "Press.ckaad"] {
        forge.add_target(name, b"bytes", 9);
    }
    forge.add_target_with("silent.ckaad", b"x", json!(null));
    forge.add_target_with("newer.ckaad", b"y", json!({"format": 2}));
    forge.add_target_with("wrong.ckaad", b"z", json!({"format": 1, "model": "../.."}));
    forge.write_targets().await;
    let catalogue = device.look().await.unwrap();
    let names: Vec<&str> = catalogue.candidates.iter().map(|c| c.target.as_str()).collect();
    assert_eq!(names, ["press-2.0.0.ckaad", "press-1.0.0.ckaad"]);
    assert_eq!(catalogue.refused.len(), 8, "{:?}", catalogue.refused);
}

#[tokio::test]
async fn more_targets_than_are_looked_at() {
    let (mut forge, mut device) = seen().await;
    device.second = None;
    for n in 0..1000 {
        forge.add_target(&format!("press-{n}.ckaad"), format!("{n}").as_bytes(), 2);
    }
    forge.write_targets().await;
    let said = device.refusal().await;
    assert!(said.contains("targets"), "{said}");
}

#[tokio::test]
async fn a_fast_forward_is_recovered_from_by_a_new_key() {
    let (mut forge, mut device) = seen().await;
    forge.timestamp.version = version(u64::MAX - 1);
    forge.snapshot.version = version(u64::MAX - 1);
    forge.write_targets().await;
    device.look().await.unwrap();
    let root = (forge.root.clone(), forge.keys[&RoleType::Root].iter().map(Key::duplicate).collect::<Vec<_>>());
    for role in [RoleType::Timestamp, RoleType::Snapshot] {
        forge.set_keys(role, 1, 1);
    }
    forge.root.version = version(2);
    forge.write_root(&[(&root.0, &root.1)]).await;
    forge.timestamp.version = version(3);
    forge.snapshot.version = version(3);
    forge.write_targets().await;
    assert_eq!(device.look().await.unwrap().versions, [2, 3, 3, 2]);
}

#[tokio::test]
async fn clocks() {
    let (mut forge, mut device) = seen().await;
    forge.write_targets().await;
    // 1970, at the first start and later: the update is taken, and it is said that the clock is behind.
    device.system = Time::from_second(100).unwrap();
    let catalogue = device.look().await.unwrap();
    assert!(catalogue.clock_behind.unwrap() > SignedDuration::from_hours(24 * 365 * 50));
    // What was issued later is the floor, and what is expired by it is refused even in 1970.
    forge.step();
    forge.timestamp._extra.insert(ISSUED.into(), json!(in_days(20).to_string()));
    forge.write_targets().await;
    device.look().await.unwrap();
    forge.step();
    forge.timestamp.expires = in_days(10);
    forge.timestamp._extra.remove(ISSUED);
    forge.write_targets().await;
    let said = device.refusal().await;
    assert!(said.contains("the system's clock is behind that"), "{said}");
    // A year ahead: refused with both times; right again, it is taken without a hand, also across a restart.
    let (mut forge, mut device) = seen().await;
    forge.write_targets().await;
    device.system = Time::now() + SignedDuration::from_hours(24 * 365);
    assert!(device.refusal().await.contains("its timestamp expired"));
    let kept = serde_json::to_string(&device.trust).unwrap();
    device.trust = serde_json::from_str(&kept).unwrap();
    device.system = Time::now();
    device.look().await.unwrap();
}

#[tokio::test]
async fn an_issue_that_cannot_be_does_not_move_the_floor() {
    let (mut forge, mut device) = seen().await;
    for nonsense in [json!("9999-12-31T00:00:00Z"), json!("1970-01-01T00:00:00Z"), json!(12), json!("yesterday")] {
        forge.step();
        forge.timestamp._extra.insert(ISSUED.into(), nonsense);
        forge.write_targets().await;
        assert_eq!(device.look().await.unwrap().clock_behind, None);
    }
}

#[tokio::test]
async fn withdrawn_bundles_are_named() {
    let (mut forge, mut device) = seen().await;
    forge.targets._extra.insert(REVOKED.into(), json!(["aa", 7, "bb"]));
    forge.write_targets().await;
    assert_eq!(device.look().await.unwrap().revoked, ["aa", "bb"]);
}

#[tokio::test]
async fn a_root_that_is_none_is_no_beginning() {
    let mut forge = Forge::new();
    forge.write().await;
    let begin = |bytes: &[u8]| {
        let path = forge.path().join("root.json");
        std::fs::write(&path, bytes).unwrap();
        ckaad_update::trust::Trust::from_root(&path).map(drop).map_err(|e| e.to_string())
    };
    assert!(begin(b"{}").unwrap_err().contains("cannot be used"));
    assert!(begin(&vec![b'x'; 100 << 10]).unwrap_err().contains("expected up to 65536"));
    let mut signed = parse::<Root>(&forge.metadata("1.root.json"));
    signed.signatures.clear();
    assert!(begin(&serde_json::to_vec(&signed).unwrap()).unwrap_err().contains("threshold"));
    let _ = CUSTOM;
}
