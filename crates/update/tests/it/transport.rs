//! Servers and lines that misbehave.

use crate::forge::{Device, Forge, folder_config};
use crate::server::{Fault, Server};
use ckaad_update::download::{DownloadError, Parts};
use ckaad_update::offer::Candidate;
use ckaad_update::remote::{FetchError, Remote, RemoteConfig};
use jiff::Timestamp;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BUNDLE: usize = 300_000;

struct Bench {
    forge: Forge,
    server: Server,
    device: Device,
    parts: Parts,
    _folder: TempDir,
}

fn bundle() -> Vec<u8> {
    (0..BUNDLE).map(|i| (i * i / 7 % 251) as u8).collect()
}

fn config(server: &Server) -> RemoteConfig {
    RemoteConfig { url: server.url(), patience: Duration::from_secs(1), ..folder_config("/".as_ref()) }
}

async fn bench() -> Bench {
    let mut forge = Forge::new();
    forge.add_target("press-2.0.0.ckaad", &bundle(), 2);
    forge.write().await;
    let server = Server::start(forge.path()).await;
    let mut device = forge.device();
    device.second = None;
    device.remote = Remote::new(&config(&server)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    Bench { forge, server, device, parts: Parts::new(folder.path().into()), _folder: folder }
}

impl Bench {
    async fn candidate(&mut self) -> Candidate {
        self.device.look().await.unwrap().candidates.remove(0)
    }

    async fn fetch(&self, candidate: &Candidate) -> Result<Vec<u8>, String> {
        let path = self.parts.fetch(&self.device.remote, candidate, |_| {}).await.map_err(|e| e.to_string())?;
        Ok(std::fs::read(path).unwrap())
    }

    fn asked_for_the_bundle(&self) -> Vec<String> {
        let of_target = self.server.requests().into_iter().filter(|r| r.contains("/targets/"));
        of_target.map(|r| r.split_once(".ckaad").unwrap().1.trim().to_owned()).collect()
    }
}

#[tokio::test]
async fn a_bundle_comes_whole_also_from_a_folder() {
    let mut bench = bench().await;
    let candidate = bench.candidate().await;
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
    assert_eq!(bench.asked_for_the_bundle(), [""]);
    // It is there: nothing is asked for.
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
    assert_eq!(bench.asked_for_the_bundle(), [""]);
    bench.parts.forget(&candidate);
    bench.device.remote = Remote::new(&folder_config(bench.forge.path())).unwrap();
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
}

#[tokio::test]
async fn what_was_broken_off_goes_on_where_it_was() {
    let mut bench = bench().await;
    let candidate = bench.candidate().await;
    bench.server.set(".ckaad", Some(Fault::CutAt(100_000)));
    for _ in 0..2 {
        assert!(bench.fetch(&candidate).await.is_err());
    }
    bench.server.set(".ckaad", None);
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
    assert_eq!(bench.asked_for_the_bundle(), ["", "from 100000", "from 200000"]);
}

#[tokio::test]
async fn a_changed_file_a_server_without_ranges_and_a_part_too_long_begin_again() {
    let mut bench = bench().await;
    let candidate = bench.candidate().await;
    let begin = async |bench: &Bench| {
        bench.parts.forget(&candidate);
        bench.server.set(".ckaad", Some(Fault::CutAt(100_000)));
        assert!(bench.fetch(&candidate).await.is_err());
        bench.server.set(".ckaad", None);
    };
    begin(&bench).await;
    bench.server.new_edition();
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
    begin(&bench).await;
    bench.server.set(".ckaad", Some(Fault::NoRanges));
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
    begin(&bench).await;
    std::fs::write(bench.parts.path(&candidate), vec![0; BUNDLE + 1]).unwrap();
    bench.server.set(".ckaad", None);
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
    begin(&bench).await;
    bench.server.set(".ckaad", Some(Fault::WrongRange));
    assert!(bench.fetch(&candidate).await.unwrap_err().contains("another part of the file (bytes 50000-"));
}

#[tokio::test]
async fn a_part_that_is_wrong_is_thrown_away_once_it_is_whole() {
    let mut bench = bench().await;
    let candidate = bench.candidate().await;
    bench.server.set(".ckaad", Some(Fault::CutAt(100_000)));
    assert!(bench.fetch(&candidate).await.is_err());
    bench.server.set(".ckaad", None);
    let path = bench.parts.path(&candidate);
    let mut part = std::fs::read(&path).unwrap();
    part[50] ^= 1;
    std::fs::write(&path, part).unwrap();
    let why = bench.parts.fetch(&bench.device.remote, &candidate, |_| {}).await.unwrap_err();
    assert_eq!(why, DownloadError::Digest { target: candidate.target.clone() });
    assert!(!why.is_passing() && !path.exists());
    assert_eq!(bench.fetch(&candidate).await.unwrap(), bundle());
}

#[tokio::test]
async fn a_bundle_that_is_longer_than_signed_is_cut_off() {
    let mut bench = bench().await;
    let candidate = bench.candidate().await;
    let path = bench.forge.path().join("targets").join(format!("{}.{}", candidate.digest, candidate.target));
    std::fs::write(&path, vec![7; BUNDLE + 1]).unwrap();
    assert!(bench.fetch(&candidate).await.unwrap_err().contains("more than the 300000 bytes"));
    bench.server.set(".ckaad", Some(Fault::Endless));
    assert!(bench.fetch(&candidate).await.unwrap_err().contains("more than the 300000 bytes"));
    assert!(std::fs::metadata(bench.parts.path(&candidate)).unwrap().len() <= BUNDLE as u64);
    std::fs::write(&path, vec![7; BUNDLE]).unwrap();
    bench.server.set(".ckaad", None);
    bench.parts.forget(&candidate);
    assert!(bench.fetch(&candidate).await.unwrap_err().contains("another digest than was signed"));
}

#[tokio::test]
async fn silence_drips_errors_redirects_and_portals_end_in_a_sentence_and_in_time() {
    let mut bench = bench().await;
    let candidate = bench.candidate().await;
    let cases: [(Fault, &str); 6] = [
        (Fault::StallAt(10), "sent nothing for 1 s"),
        (Fault::Drip, "too slow"),
        (Fault::Status(500), "was answered with 500"),
        (Fault::Status(404), "is not there"),
        (Fault::RedirectLoop, "redirected more than 5 times"),
        (Fault::Endless, "longer than 16384 bytes"),
    ];
    for (fault, sentence) in cases {
        let begun = Instant::now();
        bench.server.set("timestamp.json", Some(fault.clone()));
        let said = bench.device.refusal().await;
        assert!(said.contains(sentence), "{fault:?}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{fault:?} took {:?}", begun.elapsed());
        bench.server.set("timestamp.json", None);
        bench.device.look().await.unwrap();
    }
    bench.server.set("timestamp.json", Some(Fault::Html));
    assert!(bench.device.refusal().await.contains("a portal that wants a login"));
    bench.server.set("timestamp.json", None);
    for (fault, sentence) in
        [(Fault::StallAt(10), "sent nothing for 1 s"), (Fault::Drip, "too slow"), (Fault::Html, "was broken off after")]
    {
        bench.parts.forget(&candidate);
        bench.server.set(".ckaad", Some(fault.clone()));
        let said = bench.fetch(&candidate).await.unwrap_err();
        assert!(said.contains(sentence), "{fault:?}: {said}");
    }
}

#[tokio::test]
async fn a_missing_root_ends_the_chain_and_an_error_in_its_place_does_not() {
    let mut bench = bench().await;
    for status in [500, 403, 503] {
        bench.server.set("2.root.json", Some(Fault::Status(status)));
        assert!(bench.device.refusal().await.contains(&format!("was answered with {status}")));
    }
    bench.server.set("2.root.json", Some(Fault::Status(404)));
    bench.device.look().await.unwrap();
}

#[tokio::test]
async fn no_server_is_a_sentence() {
    let bench = bench().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut device = bench.device.clone();
    let url = format!("http://127.0.0.1:{gone}/repository").parse().unwrap();
    device.remote = Remote::new(&RemoteConfig { url, ..config(&bench.server) }).unwrap();
    let said = device.refusal().await;
    assert!(said.contains("cannot be fetched: Connection refused"), "{said}");
    let ftp = RemoteConfig { url: "ftp://host/".parse().unwrap(), ..config(&bench.server) };
    assert!(matches!(Remote::new(&ftp), Err(FetchError::Config(_))));
}

#[tokio::test]
async fn redirects_are_followed_and_a_rate_is_kept() {
    let mut bench = bench().await;
    let there = Server::start(bench.forge.path()).await;
    let to = format!("{}metadata/timestamp.json", there.url());
    bench.server.set("timestamp.json", Some(Fault::Redirect(to)));
    bench.device.look().await.unwrap();
    let candidate = bench.candidate().await;
    let slow = RemoteConfig { rate: Some(200_000), ..config(&bench.server) };
    bench.device.remote = Remote::new(&slow).unwrap();
    let begun = Instant::now();
    bench.fetch(&candidate).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(1300), "{:?}", begun.elapsed());
}

/// Whether something has expired is asked of one instant, that of the beginning, however slowly the answers come: a clock that moves in between was an
/// advisory of tough's.
#[tokio::test]
async fn expires_during_a_slow_load() {
    let mut bench = bench().await;
    let now = Timestamp::now();
    bench.forge.timestamp.expires = Timestamp::from_second(now.as_second() + 2).unwrap();
    bench.forge.write_targets().await;
    for role in ["timestamp.json", "snapshot.json", "targets.json"] {
        bench.server.set(role, Some(Fault::Late(Duration::from_millis(700))));
    }
    bench.device.system = now;
    bench.device.look().await.unwrap();
    assert!(Timestamp::now() > bench.forge.timestamp.expires, "it was not slow enough");
    bench.device.system = Timestamp::now();
    let said = bench.device.refusal().await;
    assert!(said.contains("its timestamp expired at"), "{said}");
}
