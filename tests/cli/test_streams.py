"""The program's output on a terminal, in a pipe, on a full disk, and without a reader."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from devkit import prepared

UP = ("a.test",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a settings file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clawker-fw.yaml").write_text("rules:\n  - dst: a.test\n")
    return tmp_path


def command(up: Sequence[str], *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.cli.program", *up, "--", *arguments]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "FORCE_COLOR"}}
    return {**kept, "TERM": "xterm", **variables}


def on_terminal(
    columns: int, up: Sequence[str], *arguments: str, typed: str = "", **variables: str
) -> tuple[int, str]:
    """Run the program on a terminal with some typed input, and return its exit code and output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    whole = environment(**{"COLUMNS": str(columns), **variables})
    process = prepared.start(
        command(up, *arguments), Path.cwd(), whole, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    written = b""
    with suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    return process.wait(60), written.decode()


def screen(written: str) -> list[str]:
    """Return the visible lines after cursor movements and erased lines."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


WORDS = r"\d\d:\d\d:\d\d  clawker-(envoy|coredns) has been replaced: labels \S+.* differed"


def test_records_do_not_run_into_the_spinner() -> None:
    """A record written during a step display has its own line."""
    code, written = on_terminal(300, UP, "run", CLAWKER_FW_OTEL__INFRA_PORT="4320")
    assert code == 0
    assert re.search("[⠀-⣿]", written), "there was no spinner"
    records = [line for line in screen(written) if re.search("spec_drift|has been replaced", line)]
    assert len(records) == 2
    for record in records:
        assert re.fullmatch(WORDS, record), record


def test_a_dumb_terminal_gets_no_escape_sequence() -> None:
    """With `TERM=dumb` there are no escape sequences; as a control, other terminals get each of them."""
    each = ("drift", ";", "nope", ";", "--help", ";", "run")
    _, written = on_terminal(100, UP, *each, TERM="dumb", CLAWKER_FW_OTEL__INFRA_PORT="4320")
    assert written.count("$ ") >= 3
    assert "\x1b" not in written
    _, written = on_terminal(100, UP, *each, CLAWKER_FW_OTEL__INFRA_PORT="4320")
    drift, nope, _help, run = re.split(r"\$ (?:nope|--help)\r\n|(?=Usage)", written, maxsplit=3)[:4]
    assert all("\x1b" in said for said in (drift, nope, run))


def test_init_asks_which_presets(folder: Path) -> None:
    """It lists the presets, asks again after a wrong name, and asks nothing if it can't write."""
    code, written = on_terminal(100, UP, "init", "--force", typed="pip, clade-code\npip claude-code\n")
    assert code == 0
    assert "Python packages from PyPI" in written
    assert "Error: there is no preset 'clade-code'; did you mean `claude-code`?" in written
    assert "\npresets: [pip, claude-code]\n" in (folder / "clawker-fw.yaml").read_text()
    code, written = on_terminal(100, UP, "init")
    assert (code, "PyPI" in written) == (6, False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "--dry-run", "--force-recreate", "--format", "json"], 1),
    ],
)
def test_nobody_who_reads_the_answer(arguments: list[str], code: int) -> None:
    """A full disk is an error; a missing reader, or one that stops early, changes no exit code."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(UP, *arguments), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 74
    assert done.stderr.startswith("error[output-failed]: The answer can't be written: No space left on device.\n")
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr

    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run(
        command(UP, *arguments), env=environment(), stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (gone.returncode, gone.stderr) == (code, "")

    shell = ["sh", "-c", '"$@" >&-', "sh", *command(UP, *arguments)]
    closed = subprocess.run(shell, env=environment(), stderr=subprocess.PIPE, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (code, "")


@pytest.mark.parametrize("end", ["2>&-", "2>/dev/full"])
def test_nobody_who_reads_what_is_told_beside(end: str) -> None:
    """Without a reader of standard error, a change continues, and its answer is complete."""
    shell = ["sh", "-c", f'"$@" {end}', "sh", *command(UP, "run", "--format", "json")]
    variables = environment(CLAWKER_FW_OTEL__INFRA_PORT="4320")
    done = subprocess.run(shell, env=variables, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["changed"] is True


def test_characters_that_an_encoding_has_not() -> None:
    """They are escaped, and don't prevent an answer."""
    done = subprocess.run(
        command(UP, "drift"),
        env=environment(PYTHONIOENCODING="ascii", CLAWKER_FW_OTEL__INFRA_PORT="4320"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "otel_infra_port" in done.stdout


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_libraries_and_threads_say_is_a_record(log_format: str) -> None:
    """With `--log-format json`, warnings and unhandled errors are JSON objects; otherwise readable lines."""
    program = """if True:
        import threading, warnings
        from clawker_fw.report import log, terminal
        terminal.guard()
        log.capture()
        log.configure(log.LogFormat(%r), debug=False)
        warnings.warn("old")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    """
    done = subprocess.run(
        [sys.executable, "-c", program % log_format],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "old" in done.stderr
    if log_format == "json":
        records = [json.loads(line) for line in done.stderr.splitlines()]
        assert [each["event"] for each in records[1:]] == ["thread_failed"]
        assert "ZeroDivisionError" in records[1]["traceback"]
    else:
        assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
