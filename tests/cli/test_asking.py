"""`denials --ask`: the whole program at a terminal, with an in-memory engine."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from devkit.asking import Terminal
from devkit.waiting import until
from tests.cli.conftest import Command

SETTINGS = "rules:\n  - dst: a.test # mine\n  - dst: p.test\n    path_rules: [{path: /v1, methods: [GET]}]\n"
FIRST = "first.test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clawker-fw.yaml").write_text(SETTINGS)
    return tmp_path


@contextmanager
def asking(folder: Path) -> Iterator[Terminal]:
    """Start `denials --ask`, and yield it when it asks about the first host."""
    with Terminal(folder) as shown:
        until(lambda: _refused(shown), 60, every=0.2)
        yield shown


def _refused(shown: Terminal) -> bool:
    shown.refuse("builder", FIRST)
    return FIRST in shown.screen


def rules(folder: Path) -> dict[str, Any]:
    """Return the rules of the settings file by name."""
    return {each["dst"]: each for each in yaml.safe_load((folder / "clawker-fw.yaml").read_text())["rules"]}


def test_the_answers(folder: Path) -> None:
    """Each answer becomes its rule, applied and with a note, or none; the rest of the file stays."""
    with asking(folder) as shown:
        shown.type("y\n")
        screen = shown.shows("allowed for 30m, and live after ")
        assert f"{FIRST}  https, port 443\n  asked by  builder" in screen
        assert "every agent may send anything to this host, and get anything from it" in screen
        assert f"clawker-fw rules allow https://{FIRST} --until 30m\n" in screen
        shown.refuse("tests", "always.test", port=8443)
        shown.shows("always.test  https, port 8443")
        shown.type("what?\n")
        shown.shows("Type y, a, n, s, or a time such as 2h.")
        shown.type("a\n")
        shown.shows("allowed, and live after ")
        shown.refuse("tests", "never.test", "coredns", protocol="dns", port=53, type="A")
        shown.shows("a DNS query names no port")
        shown.type("n\n")
        shown.shows("denied, and live after ")
        shown.refuse("tests", "left.test")
        shown.shows("left.test  https")
        shown.type("s\n")
        shown.refuse("tests", "left.test")
        shown.refuse("builder", "last.test")
        screen = shown.shows("last.test  https")
        shown.type("\x04")
        assert shown.ended() == 0
    assert screen.count("left.test  https") == 1
    found = rules(folder)
    assert set(found) == {"a.test", "p.test", FIRST, "always.test", "never.test"}
    assert found[FIRST]["until"] is not None
    assert found[FIRST]["note"].startswith("asked by builder; answered by ")
    assert found["always.test"]["port"] == 8443
    assert "until" not in found["always.test"]
    assert (found["never.test"]["action"], found["never.test"].get("proto")) == ("deny", None)
    assert (folder / "clawker-fw.yaml").read_text().startswith("rules:\n  - dst: a.test # mine\n")


def test_an_engine_that_fails(folder: Path) -> None:
    """The command fails with the engine's error, even while a question waits."""
    with asking(folder) as shown:
        shown.fail()
        assert shown.ended() == 4
        assert "error[engine-error]: The engine could not read the log of" in shown.screen


def test_ten_thousand_names_hide_nothing(folder: Path) -> None:
    """A flood does not change the current question; the next one counts the others in a line."""
    with asking(folder) as shown:
        before = shown.screen
        shown.type("2")
        for number in range(10_000):
            shown.refuse("tests", f"n{number}.flood.test")
        assert shown.screen == f"{before}2"
        shown.type("h\n")
        shown.shows("allowed for 2h, and live after ")
        screen = shown.shows("n0.flood.test  https")
        assert re.search(r"\nand (19|20) more\n> ", shown.shows(" more\n"))
        assert screen.count("flood.test  ") == 1
        shown.process.send_signal(signal.SIGTERM)
        assert shown.ended() == 0
    assert set(rules(folder)) == {"a.test", "p.test", FIRST}


def test_what_is_typed_too_early_is_no_answer(folder: Path) -> None:
    """Input typed before a question is complete on the screen does not count."""
    with asking(folder) as shown:
        shown.type("s\n\n\n\na\n")
        shown.refuse("tests", "sly.test")
        shown.shows("sly.test  https")
        shown.type("s\n")
        shown.refuse("tests", "next.test")
        shown.shows("next.test  https")
        assert "live after" not in shown.screen
    assert set(rules(folder)) == {"a.test", "p.test"}


def test_settings_that_are_being_edited(folder: Path) -> None:
    """Unreadable settings are reported once and pause the questions; then the new rules apply."""
    settings = folder / "clawker-fw.yaml"
    with asking(folder) as shown:
        settings.write_text("rules: [")
        shown.type("s\n")
        for name in ("one.test", "two.test"):
            shown.refuse("tests", name)
        shown.shows("No questions until the settings can be read: ")
        settings.write_text("rules: [{dst: three.test}]")
        shown.refuse("tests", "three.test")
        shown.refuse("tests", "four.test")
        if "two.test  https" in shown.shows(".test  https"):  # its turn came after the file was whole again
            shown.type("s\n")
        screen = shown.shows("four.test  https")
    assert "three.test  https" not in screen
    assert screen.count("No questions until") == 1


def test_whatever_agents_name(folder: Path) -> None:
    """Invalid host names, or names with look-alike letters, never reach the terminal."""
    hostile = ["a\x1b[2J.test", "$(reboot).test", "`id`.test", "a'b\".test", "x\u202etset.com", "169.254.169.254"]
    hostile += [
        "metadata.google.internal",
        "co.uk",
        ".example.com",
        "a.test@evil.test",
        "p\u0430ypal.com",
        "xn--pypal-4ve.com",
    ]
    with asking(folder) as shown:
        for each in hostile:
            shown.refuse("tests", each)
            shown.refuse("tests", each, protocol="http", port=80, method="GET", path="/")
        shown.refuse("tests", "last.test")
        shown.type("s\n")
        screen = shown.shows("last.test  https")
        assert not [each for each in hostile if each in screen]
        assert "\x1b[2J" not in shown.screen


def test_nobody_is_waited_for_who_can_not_answer(command: Command) -> None:
    """Without a terminal, the command fails with a hint before it asks or calls the engine."""
    outcome = command("denials", "--ask")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no-terminal" in outcome.err
    assert "denials --follow --format json" in outcome.err
    for option in ("--follow", "--since=1m", "--top=3", "--format=json"):
        outcome = command("denials", "--ask", option)
        assert (outcome.code, "no-terminal" in outcome.err) == (2, False)


def test_rules_that_can_not_be_edited(folder: Path) -> None:
    """If the rules can't be edited, no questions are asked."""
    with Terminal(folder, CLAWKER_FW_RULES="[{dst: a.test}]") as shown:
        assert shown.ended() == 3
        assert "rules-in-environment" in shown.screen
