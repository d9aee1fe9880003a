"""The manual pages, read by the two programs that people read them with."""

import os
import subprocess
from pathlib import Path

import pytest

from clawker_fw.settings.model import setting_keys
from devkit import manual, reference
from devkit.engines import EngineError, install
from devkit.stacks import CHECKOUT

PAGES = sorted((CHECKOUT / "docs" / "man").glob("man?/*"))


@pytest.fixture(scope="module", autouse=True)
def _readers(require_engine: bool) -> None:  # noqa: FBT001 - a fixture
    """Make what reads manual pages available."""
    try:
        install({"groff": "groff-base", "mandoc": "mandoc", "col": "bsdextrautils"})
    except EngineError as error:
        if require_engine:
            raise
        pytest.skip(f"NO MANUAL PAGE IS TESTED: {error}")


def shown(page: Path) -> tuple[str, str]:
    """Return a page as plain text, and all complaints about it."""
    formatted = _run("groff", "-man", "-ww", "-Tutf8", "-P-c", "-rLL=100n", str(page))
    lint = _run("mandoc", "-T", "lint", "-W", "error", str(page))
    plain = _run("col", "-b", given=formatted.stdout)
    return plain.stdout, formatted.stderr + lint.stdout + lint.stderr


def _run(*command: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_read(page: Path) -> None:
    """Neither groff nor mandoc complains, and `apropos` finds the page by its name."""
    text, complaints = shown(page)
    assert complaints == ""
    assert f"{page.stem} - " in " ".join(text.split())


def test_the_pages_have_everything() -> None:
    """The page of the program has each command and option, that of the settings file each setting."""
    program, file = (" ".join(shown(page)[0].split()) for page in PAGES)
    for name, command in reference.commands().items():
        assert f" {name} " in program
        assert [each.opts[0] for each in reference.options_of(command) if each.opts[0] not in program] == []
    assert [key for key in setting_keys() if f" {key} " not in file] == []


AWKWARD = ".start of a line, 'quoted', a back\\slash, - and --, 10 %, \"...\", an ellipsis… and `code`"


def test_what_roff_would_take_for_a_request_is_text(tmp_path: Path) -> None:
    """Whatever is in a description is shown as it is."""
    page = tmp_path / "x.1"
    page.write_text(manual.page("x", 1, "a test", f"# One\n\n{AWKWARD}\n"), "ascii")
    text, complaints = shown(page)
    assert complaints == ""
    assert AWKWARD.replace("`", "") in " ".join(text.split())


def test_a_broken_page_would_be_noticed(tmp_path: Path) -> None:
    """Positive control: an unknown request and an open block are complained of."""
    page = tmp_path / "x.1"
    page.write_text('.TH "x" "1"\n.SH Name\nx \\- y\n.NOSUCH\n.RS\n.de1 open\n')
    assert shown(page)[1]
