//! What a target of the repository says of itself, and whether it is for this device.

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The key of a target's `custom` under which an [`Offer`] stands.
pub const CUSTOM: &str = "ckaad";
/// The key of the targets role under which the digests of withdrawn bundles stand.
pub const REVOKED: &str = "ckaad_revoked";
/// The key of the timestamp role under which stands when it was signed.
pub const ISSUED: &str = "ckaad_issued";
/// The format of an [`Offer`] that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Longest name of a target, in bytes: file systems take 255, of which the digest in front takes 65.
pub const MAX_TARGET_NAME: usize = 180;
/// Longest model, group or hardware name, in bytes.
const MAX_NAME: usize = 64;
/// Most targets that are looked at.
pub const MAX_TARGETS: usize = 1000;

/// What the publisher says of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// See [`FORMAT`].
    pub format: u32,
    /// The model that it is a version of: devices ask by this name.
    pub model: String,
    /// The bundle's own version.
    pub version: Version,
    /// Counts the publications of the repository. A device never goes to a smaller number by itself.
    pub sequence: u64,
    /// Devices of this group only; empty is every device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Devices of this hardware only; empty is any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hardware: String,
    /// Versions of the agent that can run it.
    pub agent: VersionReq,
    /// Share of the devices that take it, by a hash of device and bundle.
    pub percent: u8,
}

/// An offer with the file that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The target's name.
    pub target: String,
    /// Bytes of the file.
    pub length: u64,
    /// SHA-256 of the file, lower-case hexadecimal: the bundle's digest.
    pub digest: String,
    /// What the publisher says of it.
    pub offer: Offer,
}

/// What an offer is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Tells devices apart: site, line and name.
    pub id: String,
    /// Empty is in no group.
    pub group: String,
    /// Empty is any.
    pub hardware: String,
    /// Of the agent.
    pub agent: Version,
}

/// Why an offer is no offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum OfferError {
    #[error(
        "the target {0:?} has no name that is allowed; expected up to {MAX_TARGET_NAME} of a-z, 0-9, `.`, `_` and `-`, no `.` in front"
    )]
    Name(String),
    #[error("the target {0} does not say what model it is: its `custom` has no `{CUSTOM}`")]
    Silent(String),
    #[error("what the target {target} says of itself cannot be read: {reason}")]
    Malformed { target: String, reason: String },
    #[error("the target {target} has the format {format}; this agent reads up to {FORMAT}: update the agent")]
    Newer { target: String, format: u64 },
    #[error("the target {target} has {length} bytes; a bundle has at most {}", ckaad_bundle::MAX_BYTES)]
    TooLong { target: String, length: u64 },
}

/// Whether a model, group or hardware may have this name: it becomes a level of a topic and a part of a file's name.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain)
}

/// Whether a target may have this name. Flat names only: clients do not agree on where the digest of `a/b` goes.
pub fn is_target_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= MAX_TARGET_NAME && !name.starts_with('.') && name.chars().all(plain)
}

impl Offer {
    /// The name under which it is published: what people see first of it.
    pub fn target_name(&self, digest: &str) -> String {
        let version = self.version.to_string().to_lowercase().replace('+', "_");
        let short: String = digest.chars().take(12).collect();
        format!("{}-{version}-{short}.ckaad", self.model)
    }

    /// Why this device does not take it; none when it does. Whether it is newer than what the device has is another
    /// question.
    pub fn refusal(&self, device: &Device, digest: &str) -> Option<String> {
        let Offer { group, hardware, agent, percent, .. } = self;
        if !group.is_empty() && *group != device.group {
            return Some(format!("it is for the group {group}, this device is in {}", named(&device.group, "none")));
        }
        if !hardware.is_empty() && *hardware != device.hardware {
            return Some(format!("it is for the hardware {hardware}, this is {}", named(&device.hardware, "not said")));
        }
        // A pre-release of the agent counts as the version that it comes before.
        let running = Version { pre: semver::Prerelease::EMPTY, ..device.agent.clone() };
        if !agent.matches(&running) {
            return Some(format!("it needs an agent {agent}, this is {}", device.agent));
        }
        let place = place(&device.id, digest);
        if place >= u64::from(*percent) {
            return Some(format!("it goes to {percent} % of the devices for now, and this one is not among them"));
        }
        None
    }
}

fn named<'a>(name: &'a str, absent: &'a str) -> &'a str {
    if name.is_empty() { absent } else { name }
}

/// Where in 0..100 a device stands in the rollout of a bundle: always the same place, another one for each bundle.
fn place(device: &str, digest: &str) -> u64 {
    let hash = Sha256::digest(format!("{device}\n{digest}"));
    let first: [u8; 8] = std::array::from_fn(|i| hash[i]);
    u64::from_be_bytes(first) % 100
}

impl Candidate {
    /// # Errors
    /// The name, the length or what the target says of itself is none that a bundle of ours has.
    pub fn of(
        target: &str,
        length: u64,
        digest: &str,
        custom: Option<&serde_json::Value>,
    ) -> Result<Candidate, OfferError> {
        if !is_target_name(target) {
            return Err(OfferError::Name(target.into()));
        }
        if length > ckaad_bundle::MAX_BYTES {
            return Err(OfferError::TooLong { target: target.into(), length });
        }
        let custom = custom.ok_or_else(|| OfferError::Silent(target.into()))?;
        if let Some(format) = custom["format"].as_u64().filter(|&f| f > u64::from(FORMAT)) {
            return Err(OfferError::Newer { target: target.into(), format });
        }
        let malformed = |reason: String| OfferError::Malformed { target: target.into(), reason };
        let offer: Offer = serde_json::from_value(custom.clone()).map_err(|e| malformed(e.to_string()))?;
        let optional = |name: &str| name.is_empty() || is_name(name);
        if !is_name(&offer.model) || !optional(&offer.group) || !optional(&offer.hardware) {
            return Err(malformed("a name in it is longer than 64 or has more than a-z, 0-9, `-` and `_`".into()));
        }
        if offer.percent > 100 {
            return Err(malformed(format!("percent is {}; expected 0 to 100", offer.percent)));
        }
        Ok(Candidate { target: target.into(), length, digest: digest.into(), offer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn offer() -> Offer {
        Offer {
            format: 1,
            model: "press".into(),
            version: Version::new(1, 2, 0),
            sequence: 7,
            group: "berlin".into(),
            hardware: "orin".into(),
            agent: VersionReq::parse(">=0.1.0").unwrap(),
            percent: 100,
        }
    }

    fn device() -> Device {
        Device {
            id: "site/line/device".into(),
            group: "berlin".into(),
            hardware: "orin".into(),
            agent: Version::new(0, 1, 0),
        }
    }

    #[test]
    fn an_offer_is_taken_by_those_that_it_is_for() {
        let digest = "ab".repeat(32);
        assert_eq!(offer().refusal(&device(), &digest), None);
        let group = Device { group: String::new(), ..device() };
        let refusal = offer().refusal(&group, &digest).unwrap();
        assert_eq!(refusal, "it is for the group berlin, this device is in none");
        let hardware = Device { hardware: "nano".into(), ..device() };
        assert_eq!(offer().refusal(&hardware, &digest).unwrap(), "it is for the hardware orin, this is nano");
        let newer = Offer { agent: VersionReq::parse(">=0.2").unwrap(), ..offer() };
        assert_eq!(newer.refusal(&device(), &digest).unwrap(), "it needs an agent >=0.2, this is 0.1.0");
        let pre = Device { agent: Version::parse("0.1.0-rc.1").unwrap(), ..device() };
        assert_eq!(offer().refusal(&pre, &digest), None);
    }

    #[test]
    fn a_rollout_takes_about_its_share_grows_and_chooses_anew_for_each_bundle() {
        let taken = |percent: u8, digest: &str| -> Vec<usize> {
            let offer = Offer { percent, ..offer() };
            let device = |n: usize| Device { id: format!("site/line/{n}"), ..device() };
            (0..1000).filter(|&n| offer.refusal(&device(n), digest).is_none()).collect()
        };
        let (ten, thirty) = (taken(10, "aa"), taken(30, "aa"));
        assert!((60..140).contains(&ten.len()) && (240..360).contains(&thirty.len()));
        assert!(ten.iter().all(|n| thirty.contains(n)), "a device that has it is asked again");
        assert!(taken(0, "aa").is_empty() && taken(100, "aa").len() == 1000);
        assert_ne!(ten, taken(10, "bb"));
    }

    #[test]
    fn a_hostile_target_is_refused_with_its_sentence() {
        let good = serde_json::to_value(offer()).unwrap();
        let read = |name: &str, length: u64, custom: Option<&serde_json::Value>| {
            Candidate::of(name, length, "00", custom).map(|c| c.offer).map_err(|e| e.to_string())
        };
        assert_eq!(read("a.ckaad", 10, Some(&good)), Ok(offer()));
        for name in ["/etc/passwd", "../a", "a/b", "A", "a%2e", "", ".a", "a\0", "a b", &"a".repeat(300)] {
            assert!(read(name, 10, Some(&good)).unwrap_err().contains("has no name that is allowed"), "{name:?}");
        }
        assert!(read("a", u64::MAX, Some(&good)).unwrap_err().contains("a bundle has at most"));
        assert!(read("a", 1, None).unwrap_err().contains("does not say what model it is"));
        let newer = json!({"format": 2, "what": "nobody knows yet"});
        assert!(read("a", 1, Some(&newer)).unwrap_err().contains("update the agent"));
        for (key, value) in
            [("percent", json!(101)), ("model", json!("../x")), ("sequence", json!(-1)), ("more", json!(1))]
        {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(read("a", 1, Some(&bad)).unwrap_err().contains("cannot be read"), "{key}");
        }
    }

    #[test]
    fn the_name_of_a_target_is_allowed_whatever_the_version() {
        let version = Version::parse("1.2.3-Rc.1+Build.7").unwrap();
        let name = Offer { version, ..offer() }.target_name(&"ab".repeat(32));
        assert!(is_target_name(&name), "{name}");
        assert_eq!(name, "press-1.2.3-rc.1_build.7-abababababab.ckaad");
    }
}
