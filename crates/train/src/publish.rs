//! The commands of a publisher: keys, and a repository that devices update themselves from. The work is `ckaad-update`'s.

use anyhow::{Context, Result, bail};
use ckaad_inspect::console::say;
use ckaad_update::publish::{KeyFolder, Publication, Repository, Role};
use clap::{Args, Subcommand, ValueEnum};
use semver::VersionReq;
use std::path::{Path, PathBuf};

/// Keys of an update repository
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make the keys of a new repository, encrypted, and the root.json that devices are given
    ///
    /// The root keys are needed by `keys rotate` alone: carry them away from here, each to another place. The keys of targets, snapshot and
    /// timestamp sign every publication.
    Init(InitArgs),
    /// Give a role a new key; what the old one signs is believed no more
    ///
    /// A key that may have been seen by others is rotated at once; timestamp and snapshot together also undo a fast-forward attack.
    Rotate(RotateArgs),
}

/// What `keys init` is asked for.
#[derive(Args)]
pub struct InitArgs {
    /// Folder for the keys
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many root keys there are
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_keys: usize,
    /// How many of them must sign a new root
    #[arg(long, value_name = "M", default_value_t = 1)]
    threshold: usize,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What `keys rotate` is asked for.
#[derive(Args)]
pub struct RotateArgs {
    /// Whose key is replaced; of root it is the first one
    #[arg(long, value_enum)]
    role: RoleArg,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Root,
    Targets,
    Snapshot,
    Timestamp,
}

/// Where everything lies.
#[derive(Args)]
pub struct PlaceArgs {
    /// The repository: a folder that a web server shows; it is made where there is none
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// Folder with the keys
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Args)]
struct PassphraseArgs {
    /// The first line of this file is the passphrase of the keys; without, it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// What `publish` is asked for.
#[derive(Args)]
pub struct PublishArgs {
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    /// The model that devices ask for [default: the name in the bundle]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only to devices of this group
    #[arg(long, value_name = "GROUP")]
    to: Option<String>,
    /// Only to devices of this hardware
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// Versions of the agent that may take it [default: what the bundle asks for]
    #[arg(long, value_name = "REQUIREMENT")]
    agent: Option<VersionReq>,
    /// Share of the devices that take it; publish the same bundle again with more to widen it
    #[arg(long, value_name = "N", default_value_t = 100)]
    percent: u8,
}

/// What `resign` is asked for.
#[derive(Args)]
pub struct ResignArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Targets and snapshot too; without, the timestamp alone, for which its key is enough
    #[arg(long)]
    all: bool,
}

/// What `revoke` is asked for.
#[derive(Args)]
pub struct RevokeArgs {
    /// The bundle: its version, the name of its target, or the beginning of its digest
    which: String,
    #[command(flatten)]
    place: PlaceArgs,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Root => Role::Root,
            RoleArg::Targets => Role::Targets,
            RoleArg::Snapshot => Role::Snapshot,
            RoleArg::Timestamp => Role::Timestamp,
        }
    }
}

impl PassphraseArgs {
    fn read(&self, new: bool) -> Result<String> {
        let passphrase = match &self.passphrase_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the passphrase {}", path.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => rpassword::prompt_password("Passphrase of the keys: ")
                .context("there is no terminal to ask for the passphrase; name a file with --passphrase-file")?,
        };
        if new && passphrase.len() < 8 {
            bail!("the passphrase has {} bytes; expected 8 or more", passphrase.len());
        }
        if new && self.passphrase_file.is_none() && rpassword::prompt_password("The same again: ")? != passphrase {
            bail!("the two passphrases differ");
        }
        Ok(passphrase)
    }
}

impl PlaceArgs {
    fn open(&self) -> Result<(Repository, KeyFolder)> {
        let keys = KeyFolder::new(&self.keys, &self.passphrase.read(false)?);
        Ok((Repository::open(&self.repo, &keys)?, keys))
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(work))
}

/// `keys init` and `keys rotate`.
///
/// # Errors
/// A sentence; nothing was changed then, or what was is named in it.
pub fn keys(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Init(args) => {
            let keys = KeyFolder::new(&args.out, &args.passphrase.read(true)?);
            let root = block_on(Repository::init_keys(&keys, args.root_keys, args.threshold))??;
            say(format_args!(
                "{}: keys of root ({} of {} must sign), targets, snapshot and timestamp",
                args.out.display(),
                args.threshold,
                args.root_keys
            ))?;
            let fingerprint = ckaad_update::trust::root_fingerprint(&root);
            say(format_args!(
                "give devices {} (fingerprint {fingerprint}); carry the root keys away from here",
                keys.root_path().display()
            ))?;
        }
        KeysCommand::Rotate(RotateArgs { role, place }) => {
            let (repository, keys) = place.open()?;
            let role = Role::from(role);
            let version = block_on(repository.rotate(role, &keys))??;
            say(format_args!(
                "{}: {} has a new key by root {version}; the old one is set aside beside it",
                place.repo.display(),
                role.name()
            ))?;
        }
    }
    Ok(())
}

/// `publish`.
///
/// # Errors
/// A sentence; devices see nothing of it then.
pub fn publish(args: PublishArgs) -> Result<()> {
    let (repository, keys) = args.place.open()?;
    let what = Publication {
        model: args.model.unwrap_or_default(),
        group: args.to.unwrap_or_default(),
        hardware: args.hardware.unwrap_or_default(),
        agent: args.agent,
        percent: args.percent,
    };
    let done = block_on(repository.publish(&args.bundle, &what, &keys))??;
    let offer = done.offer;
    let to = if offer.group.is_empty() { "all devices".into() } else { format!("the group {}", offer.group) };
    say(format_args!(
        "{}: {} (publication {}) to {} % of {to}",
        args.place.repo.display(),
        done.target,
        offer.sequence,
        offer.percent
    ))?;
    Ok(())
}

/// `resign`.
///
/// # Errors
/// As [`publish`].
pub fn resign(args: &ResignArgs) -> Result<()> {
    let (repository, keys) = args.place.open()?;
    let expires = block_on(repository.resign(args.all, &keys))??;
    say(format_args!("{}: the timestamp expires at {expires}", args.place.repo.display()))?;
    Ok(())
}

/// `revoke`.
///
/// # Errors
/// As [`publish`].
pub fn revoke(args: &RevokeArgs) -> Result<()> {
    let (repository, keys) = args.place.open()?;
    for target in block_on(repository.revoke(&args.which, &keys))?? {
        say(format_args!("{}: {target} is withdrawn", args.place.repo.display()))?;
    }
    Ok(())
}

/// `repository`: what it holds.
///
/// # Errors
/// It is no repository of these keys.
pub fn show(repo: &Path, keys: &Path) -> Result<()> {
    if !repo.join("metadata").is_dir() {
        bail!("{} is no repository: it has no folder metadata", repo.display());
    }
    // Nothing is signed, so nothing is decrypted.
    let status = Repository::open(repo, &KeyFolder::new(keys, ""))?.status();
    say(format_args!("root         fingerprint {}", status.fingerprint))?;
    for (role, version, expires) in &status.roles {
        say(format_args!("{role:<12} version {version}, expires {expires}"))?;
    }
    for (target, offer) in &status.bundles {
        let limits = [("group", &offer.group), ("hardware", &offer.hardware)];
        let limits: String = limits.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!(", {k} {v}")).collect();
        say(format_args!(
            "{:<12} publication {}, model {}, {} %{limits}",
            target, offer.sequence, offer.model, offer.percent
        ))?;
    }
    for digest in &status.revoked {
        say(format_args!("withdrawn    {digest}"))?;
    }
    Ok(())
}
