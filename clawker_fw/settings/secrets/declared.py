"""The user's file of secrets: the source of each secret, and the hosts that may receive it.

Settings may be in a repository or where an agent can write. So commands, which are code, and the hosts that
receive secrets are declared in a file that only the user can write. A rule only names a secret.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Self

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    model_validator,
)

from clawker_fw.errors import RefusedError, unreadable_settings
from clawker_fw.rules.destination import is_address, parse_destination
from clawker_fw.rules.path_words import parse_secret_name
from clawker_fw.rules.paths import DEFAULT_HEADER
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol
from clawker_fw.settings.document import document_of
from clawker_fw.settings.durations import LONGEST_DURATION, parse_duration
from clawker_fw.settings.files import text_of
from clawker_fw.settings.invalid_settings import invalid

FILE_NAME = "secrets.yaml"
SHORTEST_REFRESH = 10.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}")
"""A header's name in lower case (RFC 9110, section 5.1)."""

_RESERVED_HEADERS = frozenset(
    {"connection", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that are hop-by-hop (RFC 9110, section 7.6.1), or choose the host."""
_RESERVED_PREFIXES = ("content-", "x-envoy-", "proxy-")


def _header(text: str) -> str:
    name = text.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{text!r} is not the name of a header")
    if name in _RESERVED_HEADERS or name.startswith(_RESERVED_PREFIXES):
        raise ValueError(f"`header: {text}` can't carry a secret: it says how the request is sent, or to whom")
    return name


def _place(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(Protocol.HTTPS.default_port)
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a host; write `api.example.com`, or `api.example.com:8443`")
    if is_address(host):
        return f"{host}:{int(port)}"  # of an upstream proxy
    destination = parse_destination(host)
    if destination.subtree:
        raise ValueError(f"{text!r} is for names that an agent chooses; name each host that may have the secret")
    return f"{destination.name}:{int(port)}"


def _words(text: str) -> str:
    if text and "\0" not in text:
        return text
    raise ValueError("it is empty, or has a null character")


def _some(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if hosts:
        return hosts
    raise ValueError("`hosts` is empty, so the secret could go nowhere; name the hosts that may have it")


Words = Annotated[StrictStr, AfterValidator(_words)]
Refresh = Annotated[float, BeforeValidator(parse_duration), Field(ge=SHORTEST_REFRESH, le=LONGEST_DURATION)]


class SourceEntry(BaseModel):
    """Where a secret comes from: one of three."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: Words | None = None
    """An environment variable of the user who runs clawker-fw."""
    file: Words | None = None
    """A file, relative to this one."""
    command: tuple[Words, ...] | None = Field(default=None, min_length=1)
    """A program with its arguments, whose output it is. No shell is used."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.command)) != 1:
            raise ValueError("a secret comes from one of `env: NAME`, `file: PATH` and `command: [PROGRAM, …]`")
        return self

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return "env" if self.env else "file" if self.file else "command"


class SecretEntry(BaseModel):
    """A secret, as the user declares it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: SourceEntry = Field(alias="from")
    """Where it comes from."""
    hosts: Annotated[tuple[Annotated[StrictStr, AfterValidator(_place)], ...], AfterValidator(_some)]
    """The hosts that may have it, exactly; port 443 unless written. No rule adds one."""
    header: Annotated[StrictStr, AfterValidator(_header)] = DEFAULT_HEADER
    """The header that it is put into."""
    refresh: Refresh | None = None
    """After which time `watch` obtains it again, from 10 s to a day. Default: never."""
    at_rest: StrictBool = False
    """Whether it outlives a restart of Envoy's container without `watch`: it is then on the disk of the engine's
    machine as well, in Envoy's volume, until it is forgotten. Default: in memory alone."""


class SecretsFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secrets: Mapping[Annotated[StrictStr, AfterValidator(parse_secret_name)], SecretEntry] = {}
    """Each secret by its name."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header of each secret, in lower case."""
        return {name: entry.header for name, entry in self.secrets.items()}


def default_path() -> Path:
    """Return the default path of the user's file."""
    return platformdirs.user_config_path("clawker-fw") / FILE_NAME


def parse_declared(content: bytes, path: Path) -> SecretsFile:
    """Parse a file of secrets that was read from `path`. Raise SettingsError if it is invalid."""
    document = document_of(text_of(content, path), path)
    try:
        return SecretsFile.model_validate(document.values)
    except ValidationError as error:
        raise invalid(error, document, SecretsFile) from error


def read_owned(path: Path) -> bytes:
    """Return the content of a file that only its owner can use.

    Raises:
        RefusedError: when other users own it, or could read or write it.
        SettingsError: when it can't be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            problem, quoted = _openness(os.fstat(file.fileno())), quote(str(path))
            if problem:
                raise RefusedError(
                    "secrets-not-private",
                    f"{path} {problem}, so it can't be trusted with secrets.",
                    hint=f"Make it private: chown {os.geteuid()} {quoted}; chmod 600 {quoted}",
                )
            return file.read()
    except (OSError, ValueError) as error:
        raise unreadable_settings(path, error) from error


def _openness(status: os.stat_result) -> str:
    """Return what is wrong with a file's owner or permissions, as a predicate; "" if it is private."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid not in {0, os.geteuid()}:
        return f"belongs to user {status.st_uid}"
    if status.st_mode & 0o077:
        return f"can be used by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""
