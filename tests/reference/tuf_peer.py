"""python-tuf, the reference implementation, as publisher and as client, for crates/update/tests/it/peer.rs.

    tuf_peer.py publish FOLDER                 a repository with one bundle, and FOLDER/root.json; expiries with fractions of a second stay whole
    tuf_peer.py fetch ROOT URL TARGET OUT      refreshes from URL/metadata, downloads TARGET from URL/targets into the folder OUT
"""

import datetime
import json
import sys
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import Updater


def publish(folder):
    folder = Path(folder)
    (folder / "metadata").mkdir(parents=True)
    (folder / "targets").mkdir()
    expires = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=20)
    signers = {role: CryptoSigner.generate_ed25519() for role in ("root", "targets", "snapshot", "timestamp")}
    root = Root(expires=expires, consistent_snapshot=True)
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
    content = b"a bundle of the reference implementation"
    bundle = folder / "bundle"
    bundle.write_bytes(content)
    target = TargetFile.from_file("press-1.0.0.ckaad", str(bundle), ["sha256"])
    target.unrecognized_fields["custom"] = {
        "ckaad": {"format": 1, "model": "press", "version": "1.0.0", "sequence": 1, "agent": "*", "percent": 100}
    }
    (folder / "targets" / f"{target.hashes['sha256']}.press-1.0.0.ckaad").write_bytes(content)
    targets = Targets(expires=expires, targets={"press-1.0.0.ckaad": target})
    snapshot = Snapshot(expires=expires, meta={"targets.json": MetaFile(version=1)})
    timestamp = Timestamp(expires=expires, snapshot_meta=MetaFile(version=1))
    names = {"root": "1.root.json", "targets": "1.targets.json", "snapshot": "1.snapshot.json", "timestamp": "timestamp.json"}
    for role, signed in (("root", root), ("targets", targets), ("snapshot", snapshot), ("timestamp", timestamp)):
        metadata = Metadata(signed)
        metadata.sign(signers[role])
        (folder / "metadata" / names[role]).write_bytes(metadata.to_bytes(JSONSerializer()))
    (folder / "root.json").write_bytes((folder / "metadata" / "1.root.json").read_bytes())


def fetch(root, url, target, out):
    out = Path(out)
    (out / "metadata").mkdir(parents=True)
    updater = Updater(
        metadata_dir=str(out / "metadata"),
        metadata_base_url=f"{url}/metadata/",
        target_dir=str(out),
        target_base_url=f"{url}/targets/",
        bootstrap=Path(root).read_bytes(),
    )
    updater.refresh()
    info = updater.get_targetinfo(target)
    updater.download_target(info)
    print(json.dumps(info.custom))


if __name__ == "__main__":
    {"publish": publish, "fetch": fetch}[sys.argv[1]](*sys.argv[2:])
