"""Docker Engine 29, built from its Go module, with containerd, runc and other tools of a Debian root."""

import hashlib
from pathlib import Path

VERSION = "29.8.1"
"""The release with this module (`releases/versions.yaml` in it names the one before)."""

PACKAGES = ("nftables",)
"""Debian packages in its root that Debian's own engine does without: this one calls `nft`."""

_MODULE = "github.com/moby/moby/v2"
_MODULE_VERSION, _DIGEST = "v2.0.0-beta.24", "h1:sWv7EckkDJhpraR9yUjkw1XeVf39+MWd58E22PYloNA="
_VARIABLES = {f"{_MODULE}/dockerversion.Version": VERSION}
_TAGS = ("static_build", "nri_no_wasm")
"""The build tags of the release's static programs (`hack/make.sh` in the module). Without C, `netgo` and
`osusergo` change nothing, but have Go's own packages compiled once more."""


def root_name() -> str:
    """Return the name of a root folder with this engine, which has the digest of what it is made from."""
    made_from = repr((_MODULE_VERSION, _DIGEST, _VARIABLES, _TAGS))
    return f"{VERSION}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"


def put_engine(root: Path) -> None:
    """Compile the engine's programs over those of Debian's engine in a root folder. That takes minutes."""
    from devkit.go_programs import module_folder  # noqa: PLC0415 - slow, and every start of an engine imports this
    from devkit.programs import machine  # noqa: PLC0415 - likewise
    from hatch_build import compile_program  # noqa: PLC0415 - likewise

    source = module_folder(_MODULE, _MODULE_VERSION, _DIGEST)
    for name in ("dockerd", "docker-proxy"):
        target = root / "usr/sbin" / name
        target.unlink()
        compile_program(source, target, machine(), _VARIABLES, package=f"./cmd/{name}", tags=_TAGS)
