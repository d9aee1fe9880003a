"""The files that a watcher needs on every host: settings, rules, certificates, secrets. Each with its place there.

What a file names by a relative path is beside it on the hosts as it is here, and what it names by an absolute path
is at this very path. So no file is rewritten, and nothing of this machine's folders is in their places.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clawker_fw.errors import RefusedError, SettingsError, unreadable_settings
from clawker_fw.settings.files import resolved
from clawker_fw.settings.secrets.vault import Vault
from clawker_fw.settings.secrets.wanted import WantedSecret
from clawker_fw.settings.sources import Source
from clawker_fw.settings.values import StackSettings

SETTINGS = PurePosixPath("/etc/clawker-fw/clawker-fw.yaml")
_WITHOUT_FILE = PurePosixPath("/", SETTINGS.name)
"""Without a settings file, paths in variables begin at the working folder, which is this one's."""

SECRETS = PurePosixPath("/run/secrets/clawker-fw/secrets.yaml")

MOST_OCTETS = {False: 1000 << 10, True: 500 << 10}
"""How large a config of a swarm may be, and a secret (swarmkit, `manager/controlapi`)."""

_UP = "above"
_DIGEST_SHOWN = 16
_COST = {"n": 1 << 14, "r": 8, "p": 1}
"""What a guess at a secret costs: 16 MiB and some 50 ms (RFC 7914)."""


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file on every host, and the one here that it is a copy of. `kind` is what it is, in a word."""

    kind: str
    target: PurePosixPath
    source: Path
    content: bytes = field(repr=False)
    secret: bool = False

    def name(self, project: str) -> str:
        """Return its name in the swarm, with a digest: what a swarm keeps under a name can't be changed.

        Whoever reads the name of a secret can test a guess. So it is costly to make, and depends on the project.
        """
        start = f"{project}-{self.kind}"
        if self.secret:
            made = hashlib.scrypt(
                self.content, salt=f"clawker-fw {start}".encode(), dklen=_DIGEST_SHOWN // 2, **_COST
            )
            return f"{start}-{made.hex()}"
        return f"{start}-{hashlib.sha256(self.content).hexdigest()[:_DIGEST_SHOWN]}"


@dataclass(frozen=True, slots=True)
class HostFiles:
    """All of them. `settings` and `secrets` are where the hosts have these files, if there are any."""

    files: tuple[HostFile, ...]
    settings: PurePosixPath | None
    secrets: PurePosixPath | None


def host_files(
    sources: Sequence[Source], settings: StackSettings, vault: Vault | None, wanted: Iterable[WantedSecret]
) -> HostFiles:
    """Return what hosts need of the settings in these sources, and of the secrets that their rules want.

    Raises:
        RefusedError: when a host could not obtain a secret, or a file is too large for a swarm.
        SettingsError: when a file can't be read, or the settings name one by a user's home folder.
    """
    files = [each for each in sources if not each.in_variable]
    beside = files[0].path.absolute().parent if files else Path.cwd()
    where = SETTINGS if files else _WITHOUT_FILE
    named = (*_of_files(files), *_named_by_settings(settings, beside))
    main, own = _placed(where, named)
    declared, secret = _placed(SECRETS, tuple(_of_vault(vault, wanted)) if vault else ())
    found = (*own, *secret)
    for each in found:
        _require_room(each)
    return HostFiles(found, main if files else None, declared if vault else None)


@dataclass(frozen=True, slots=True)
class _Named:
    """A file, and the path by which it is named, as seen from the folder of the main file."""

    kind: str
    path: str
    source: Path
    content: bytes = field(repr=False)
    secret: bool = False


def _placed(main: PurePosixPath, named: Sequence[_Named]) -> tuple[PurePosixPath, tuple[HostFile, ...]]:
    """Return the place of the main file, and all files at theirs.

    The main file is so far below its folder that whatever it reaches by `..` is in there, too.
    """
    above = main.parent != PurePosixPath("/")
    depth = max((each.path.split("/").count("..") for each in named), default=0) if above else 0
    folder = main.parent.joinpath(*[_UP] * depth)
    files = {PurePosixPath(os.path.normpath(folder / each.path)): each for each in named}
    return folder / main.name, tuple(
        HostFile(each.kind, target, each.source, each.content, each.secret)
        for target, each in sorted(files.items())
    )


def _of_files(files: Sequence[Source]) -> Iterator[_Named]:
    """Yield the settings file and what it includes, by each path by which one of them names it."""
    known = {resolved(each.path): each for each in files}
    left = [(SETTINGS.name, "settings", files[0])] if files else []
    while left:
        path, kind, source = left.pop()
        yield _Named(kind, path, source.path.absolute(), _content(source))
        for name in source.includes:
            where = os.path.normpath(PurePosixPath(path).parent / name)
            left.append((where, "rules", known[resolved(source.path.parent / name)]))


def _certificates(path: Path) -> bytes:
    """Return what a file has that must not have a private key: hosts get it as no secret."""
    content = _read(path)
    if b"PRIVATE KEY" in content:
        raise RefusedError(
            "fleet-key-exposed",
            f"{path} has a private key, and what hosts get of it is no secret.",
            hint="Name a file that has the certificates alone.",
        )
    return content


def _content(source: Source) -> bytes:
    """Return the octets of a file with settings. A pipe can't be read twice."""
    return _read(source.path) if source.path.is_file() else source.text.encode()


def _named_by_settings(settings: StackSettings, beside: Path) -> Iterator[_Named]:
    if name := settings.inspection.ca_file:
        path = beside / _without_home("inspection.ca_file", name)
        yield _Named("authorities", os.path.normpath(name), path, _certificates(path))
    if settings.otel.endpoint and (folder := settings.otel.certs_dir):
        where = beside / _without_home("otel.certs_dir", folder)
        for path in sorted(each for each in where.iterdir() if each.suffix in {".crt", ".key"}):
            named = os.path.normpath(PurePosixPath(folder, path.name))
            yield _Named(f"telemetry-{path.name}", named, path, _read(path), secret=path.suffix == ".key")


def _without_home(setting: str, name: str) -> str:
    """Return a path that means the same on every host.

    Raises:
        SettingsError: when it begins in the home folder of a user.
    """
    if name.startswith("~"):
        raise SettingsError(
            "fleet-path-local",
            f"`{setting}: {name}` is in the home folder of a user, which other hosts don't have.",
            hint="Put it beside the settings file, and name it by a relative path.",
        )
    return name


def _of_vault(vault: Vault, wanted: Iterable[WantedSecret]) -> Iterator[_Named]:
    """Yield the file that declares secrets, and the files of those that rules want.

    Raises:
        RefusedError: when a secret comes from elsewhere than a file.
    """
    yield _Named("secrets", SECRETS.name, vault.path, _read(vault.path), secret=True)
    for name in sorted({each.name for each in wanted}):
        source = vault.declared.secrets[name].source
        if source.file is None:
            raise RefusedError(
                "fleet-secret-local",
                f"The secret {name} comes from {_NOUNS[source.kind]}, which other hosts don't have.",
                context=[f"{vault.path} declares it"],
                hint=f"Write it into a file that only you can read, and say `from: {{file: PATH}}` for `{name}`.",
            )
        path = vault.path.parent / source.file
        yield _Named(f"secret-{name}", os.path.normpath(source.file), path.absolute(), _read(path), secret=True)


_NOUNS = {"env": "an environment variable", "command": "a command"}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable_settings(path, error) from error


def _require_room(file: HostFile) -> None:
    if len(file.content) > MOST_OCTETS[file.secret]:
        kind = "secret" if file.secret else "config"
        raise RefusedError(
            "fleet-file-too-large",
            f"{file.source} has {len(file.content):,} octets, and a {kind} of a swarm has at most "
            f"{MOST_OCTETS[file.secret]:,}.",
            hint="Divide its rules among several files, and `include` them.",
        )
