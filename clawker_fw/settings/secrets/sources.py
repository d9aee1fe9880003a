"""Obtains secrets from their sources. No message contains a source's output."""

import os
import signal
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path

from clawker_fw.background import in_background
from clawker_fw.errors import SettingsError
from clawker_fw.rules.paths import Form
from clawker_fw.settings.secrets.declared import SecretEntry, SourceEntry

LONGEST_SECRET = 8 << 10
"""In bytes: the longest secret that a header can carry."""

_MOST_READ = 2 * LONGEST_SECRET

COMMAND_SECONDS = 30.0
"""The time limit of a command, and of reading a file, because a file system may hang."""

_SPARE_SECONDS = 1.0
"""Extra time to kill a command."""

GIT_USER = "x-access-token"
"""The user name that code hosts accept with a token."""


def header_value(secret: str, form: Form) -> str:
    """Return a header's value with a secret (RFC 6750, section 2.1; RFC 7617, section 2)."""
    match form:
        case Form.BEARER:
            return f"Bearer {secret}"
        case Form.BASIC:
            return f"Basic {b64encode(f'{GIT_USER}:{secret}'.encode()).decode()}"
        case Form.PROXY:
            return f"Basic {b64encode(secret.encode()).decode()}"
        case Form.RAW:
            return secret


def obtain(name: str, entry: SecretEntry, folder: Path, environment: Mapping[str, str]) -> str:
    """Obtain a secret; a relative path of its source starts at `folder`.

    Raises:
        SettingsError: when the source fails, or its value can't be in a header. The value is never shown.
    """
    content = _content(name, entry.source, folder, environment)
    text = content.decode("ascii", errors="replace").removesuffix("\n").removesuffix("\r")
    if problem := _problem(text, entry.source):
        raise _failed(name, entry.source, problem)
    return text


def obtain_all(
    entries: Mapping[str, SecretEntry], folder: Path, environment: Mapping[str, str]
) -> Mapping[str, str | SettingsError]:
    """Obtain secrets in parallel: each value, or the error of its source.

    Takes as long as the slowest source, within a limit. A thread that reads from a hung file system is abandoned.
    """
    asking = {name: in_background(_obtain, name, entry, folder, environment) for name, entry in entries.items()}
    ended, _ = wait(asking.values(), COMMAND_SECONDS + _SPARE_SECONDS)
    silent = f"it has not answered after {COMMAND_SECONDS:g} s"
    return {
        name: asked.result() if asked in ended else _failed(name, entries[name].source, silent)
        for name, asked in asking.items()
    }


def _obtain(name: str, entry: SecretEntry, folder: Path, environment: Mapping[str, str]) -> str | SettingsError:
    try:
        return obtain(name, entry, folder, environment)
    except SettingsError as error:
        return error


def _problem(text: str, source: SourceEntry) -> str:
    if not text:
        return f"the {_NOUNS[source.kind]} is empty"
    if len(text) > LONGEST_SECRET:
        return f"it is longer than {LONGEST_SECRET:,} bytes"
    if "\n" in text or "\r" in text:
        return "it has several lines"
    if text != text.strip():
        return "it begins or ends with a space"
    if not (text.isascii() and text.isprintable()):
        return "it has characters that can be in no header"
    return ""


_NOUNS = {"env": "environment variable", "file": "file", "command": "command"}


def _content(name: str, source: SourceEntry, folder: Path, environment: Mapping[str, str]) -> bytes:
    if source.env is not None:
        value = environment.get(source.env)
        if value is None:
            raise _failed(name, source, f"{source.env} is not set here")
        return os.fsencode(value)
    if source.file is not None:
        return _file(name, source, folder / source.file)
    return _output(name, source, folder, environment)


def _file(name: str, source: SourceEntry, path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            return file.read(_MOST_READ) or b""  # None: a pipe without data yet
    except OSError as error:
        raise _failed(name, source, f"{path}: {error.strerror}") from error


def _output(name: str, source: SourceEntry, folder: Path, environment: Mapping[str, str]) -> bytes:
    """Return a command's output. It runs without a terminal, and its standard error is discarded."""
    command = source.command or ()
    try:
        output, status = _run(command, folder, environment)
    except TimeoutError as error:
        raise _failed(name, source, f"{command[0]} has not ended after {COMMAND_SECONDS:g} s") from error
    except OSError as error:
        raise _failed(name, source, f"{command[0]} can't be run: {error.strerror}") from error
    if status and len(output) <= _MOST_READ:
        raise _failed(name, source, f"{command[0]} failed with {status}")
    return output


def _failed(name: str, source: SourceEntry, problem: str) -> SettingsError:
    return SettingsError(
        "secret-unavailable",
        f"The secret {name} can't be obtained from its {_NOUNS[source.kind]}: {problem}.",
        hint="Run what `from` names as the same user; `clawker-fw secrets check` tries all of them.",
    )


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[bytes, int]:
    """Run a program, and return its output and its status; a negative status is the signal that ended it.

    Output over the limit is cut just above it, and the program is killed. Afterwards, also after an error or an
    interrupt here, the rest of its process group is killed.
    """
    end = time.monotonic() + COMMAND_SECONDS
    with subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        late = threading.Timer(COMMAND_SECONDS, _kill_group, [process.pid])
        late.start()
        try:
            output = process.stdout.read(_MOST_READ + 1) if process.stdout else b""
            if len(output) <= _MOST_READ:  # wait without reaping, so that the process group's id stays reserved
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            late.cancel()
            late.join()
            _kill_group(process.pid)
    if time.monotonic() > end:
        raise TimeoutError
    return output, process.returncode


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
