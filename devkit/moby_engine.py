"""Docker Engine 29, built from its Go modules: no Debian suite has it.

`devkit/moby` has the modules of the release. containerd, runc and the tools that the engine calls are those of the
Debian root into which its programs are put.
"""

import hashlib
from pathlib import Path

VERSION = "29.8.1"
"""The release with these modules (`releases/versions.yaml` in them names the one before)."""

PACKAGES = ("nftables",)
"""Debian packages in its root that Debian's own engine does without: this one calls `nft`."""

_SOURCE = Path(__file__).with_name("moby")
_MODULE = "github.com/moby/moby/v2"
_VARIABLES = {f"{_MODULE}/dockerversion.Version": VERSION}
_TAGS = ("static_build", "nri_no_wasm")
"""The build tags of the release's static programs (`hack/make.sh` in the modules). Without C, `netgo` and
`osusergo` change nothing, but have Go's own packages compiled once more."""


def root_name() -> str:
    """Return the name of a root folder with this engine, which has the digest of what it is made from."""
    parts = [*((_SOURCE / name).read_bytes() for name in ("go.mod", "go.sum")), repr((_VARIABLES, _TAGS)).encode()]
    return f"{VERSION}-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"


def put_engine(root: Path) -> None:
    """Compile the engine's programs over those of Debian's engine in a root folder. That takes minutes.

    Raises:
        FileNotFoundError: when Debian's engine is not where it is expected, and would be used instead.
    """
    from devkit.programs import machine  # noqa: PLC0415 - slow, and every start of an engine imports this module
    from hatch_build import compile_program  # noqa: PLC0415 - likewise

    for name in ("dockerd", "docker-proxy"):
        target = root / "usr/sbin" / name
        target.unlink()
        compile_program(_SOURCE, target, machine(), _VARIABLES, package=f"{_MODULE}/cmd/{name}", tags=_TAGS)
