"""The files on this machine that can change a decision. An agent that can write one controls the firewall.

`agents.exposure` compares them with agents' mounts. Every file that a command reads belongs here, unless it only
affects output.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from clawker_fw.engine import client_config
from clawker_fw.private_files import state_folder

if TYPE_CHECKING:
    from clawker_fw.settings.loaded import Loaded
    from clawker_fw.settings.secrets.vault import Vault
    from clawker_fw.settings.secrets.wanted import WantedSecret
    from clawker_fw.stack.release import Release


_NO_SCRIPT = {"", "-", "-c"}
"""What `sys.argv[0]` is when Python runs no script."""

_OF_PACKAGES = {"site-packages", "dist-packages"}
"""The names of package folders; the second is Debian's."""


def files(
    project: str,
    loaded: "Loaded",
    vault: "Vault | None",
    secrets: "Iterable[WantedSecret]",
    release: "Release",
) -> tuple[Path, ...]:
    """Return these files and folders (with all of their content), the settings first. Some may not exist."""
    otel, upstream = loaded.settings.otel, loaded.settings.upstream
    named = (loaded.settings.inspection.ca_file, upstream.ca_file, otel.certs_dir if otel.endpoint else None)
    docker = client_config.folder(os.environ)  # the engine's address, keys and logins
    paths = (
        *loaded.files,
        *filter(None, (beside(loaded, name) for name in named)),
        *(_of_secrets(vault, {secret.name for secret in secrets}) if vault else ()),
        state_folder() / project,  # keys, and the last good settings
        Path("/etc/systemd/system"),
        platformdirs.user_config_path() / "systemd" / "user",
        docker,
        Path(os.environ.get("DOCKER_CERT_PATH") or docker),
        release.package,
        release.templates,
        *_of_python(),
    )
    return tuple(dict.fromkeys(path.absolute() for path in paths))


def beside(loaded: "Loaded", name: str | None) -> Path | None:
    """Return the path in a setting, relative to the settings file."""
    folder = loaded.source.absolute().parent if loaded.source else Path()
    return folder / Path(name).expanduser() if name else None


def _of_secrets(vault: "Vault", names: Iterable[str]) -> Iterator[Path]:
    """Yield the file that declares secrets, the files with their values, and commands' possible files."""
    folder = vault.path.parent
    yield vault.path
    for name in sorted(names):
        source = vault.declared.secrets[name].source
        if source.file:
            yield folder / source.file
        for word in source.command or ():
            if program := shutil.which(word, path=vault.environment.get("PATH")):
                yield Path(program)
            yield folder / word


def _of_python() -> Iterator[Path]:
    """Yield the interpreter and its libraries: they are the program, and include Envoy."""
    yield from (Path(sys.executable), Path(sys.prefix, "pyvenv.cfg"))
    if sys.argv[0] not in _NO_SCRIPT:
        yield Path(sys.argv[0])
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    for entry in filter(None, sys.path):
        folder = Path(entry)
        whole = entry in libraries or folder.suffix == ".zip" or folder.name in _OF_PACKAGES
        # In other folders, only what Python would import as the program.
        yield folder if whole else folder / "clawker_fw"
    if sys.pycache_prefix:
        yield Path(sys.pycache_prefix)
