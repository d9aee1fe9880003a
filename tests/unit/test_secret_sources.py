"""Sources of secrets, which are never shown."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from clawker_fw.errors import ExitCode, SettingsError
from clawker_fw.settings.secrets import sources
from clawker_fw.settings.secrets.declared import SecretEntry
from clawker_fw.settings.secrets.sources import LONGEST_SECRET, obtain
from devkit.waiting import until

HIDDEN = "t0ken-hidden"


def entry(**source: object) -> SecretEntry:
    return SecretEntry.model_validate({"from": source, "hosts": ["a.test"]})


def shell(text: str) -> SecretEntry:
    return entry(command=["/bin/sh", "-c", text])


def failure(found: SecretEntry, folder: Path, **environment: str) -> SettingsError:
    """Return the error of obtaining a secret, which must not contain it."""
    with pytest.raises(SettingsError) as caught:
        obtain("x", found, folder, environment)
    error = caught.value
    assert (error.code, error.exit_code) == ("secret-unavailable", ExitCode.SETTINGS)
    chain: BaseException | None = error
    while chain:
        assert "hidden" not in repr(chain.args)
        chain = chain.__cause__ or chain.__context__
    return error


def test_each_source(tmp_path: Path) -> None:
    """One final line break is stripped."""
    (tmp_path / "token").write_text(f"{HIDDEN}\r\n")
    environment = {"TOKEN": HIDDEN, "PATH": os.environ["PATH"]}
    for found in (
        entry(env="TOKEN"),
        entry(file="token"),
        entry(file=str(tmp_path / "token")),
        entry(command=["cat", "token"]),
        shell(f"echo {HIDDEN}; echo complaint >&2"),
    ):
        obtained = obtain("x", found, tmp_path, environment)
        assert obtained == HIDDEN


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is empty"),
        (f"{HIDDEN}\n{HIDDEN}", "several lines"),
        (f" {HIDDEN}", "a space"),
        (f"{HIDDEN}\t{HIDDEN}", "in no header"),
        (f"{HIDDEN}é", "in no header"),
        (HIDDEN * (LONGEST_SECRET // 8), "longer than"),
    ],
)
def test_what_can_be_in_no_header(tmp_path: Path, value: str, said: str) -> None:
    """A value that no header can carry is refused, whatever its source."""
    (tmp_path / "token").write_text(value)
    assert said in failure(entry(file="token"), tmp_path).message
    assert said in failure(entry(env="TOKEN"), tmp_path, TOKEN=value).message
    assert said in failure(entry(command=["/bin/cat", "token"]), tmp_path).message


def test_sources_that_fail(tmp_path: Path) -> None:
    """The error gives the reason without the source's output."""
    assert "TOKEN is not set here" in failure(entry(env="TOKEN"), tmp_path).message
    assert "No such file" in failure(entry(file="none"), tmp_path).message
    assert "directory" in failure(entry(file="."), tmp_path).message
    assert "can't be run" in failure(entry(command=["/nowhere/none"]), tmp_path).message
    assert "failed with 3" in failure(shell(f"echo {HIDDEN}; echo {HIDDEN} >&2; exit 3"), tmp_path).message
    assert "longer than" in failure(shell("yes hidden"), tmp_path).message


def test_a_command_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that never ends is killed with its children, even if it has closed its output."""
    monkeypatch.setattr(sources, "COMMAND_SECONDS", 0.5)
    for text in ("echo $$ > pid; sleep 60 & sleep 60", "echo $$ > pid; exec >&-; sleep 60 & sleep 60"):
        assert "has not ended" in failure(shell(text), tmp_path).message
        until(lambda: not alive(int((tmp_path / "pid").read_text())))


def alive(process: int) -> bool:
    """Whether a process, or another one of its group, is running."""
    with suppress(ProcessLookupError):
        os.killpg(process, 0)
        return True
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A process that keeps running without its output is killed when the command ends."""
    found = obtain(
        "x", shell("sleep 60 >/dev/null 2>&1 & echo $! > child; echo token"), tmp_path, {"PATH": "/bin"}
    )
    assert found == "token"
    until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_a_command_has_the_environment_and_no_input(tmp_path: Path) -> None:
    """Commands have no input, so they can't wait for an answer."""
    assert obtain("x", shell("read line || echo $NAME"), tmp_path, {"NAME": "named"}) == "named"


def test_a_pipe_to_which_nobody_writes_gives_nothing(tmp_path: Path) -> None:
    """A pipe without a writer yields nothing and blocks nobody, even if it is held open."""
    pipe = tmp_path / "token"
    os.mkfifo(pipe)
    assert "is empty" in failure(entry(file="token"), tmp_path).message
    held = os.open(pipe, os.O_RDWR)
    try:
        assert "is empty" in failure(entry(file="token"), tmp_path).message
    finally:
        os.close(held)
