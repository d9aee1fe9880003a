"""NOTICE names all third-party software in the programs with its licence, or it is not written."""

import re
import subprocess
from pathlib import Path

import pytest

from clawker_fw.stack.release import Release
from devkit import notice
from devkit.notice import Component, NoticeError
from hatch_build import ARCHITECTURES, PROGRAMS, STANDARD_LIBRARY, toolchain

MIT = """MIT License

Copyright (c) 2026 Nobody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies.
"""
TITLE = "example.test/module v1.2.3"


@pytest.fixture(scope="module")
def carried() -> tuple[Component, ...]:
    """All third-party components of the programs."""
    return notice.components()


def test_the_notice_is_current(carried: tuple[Component, ...]) -> None:
    """The checked-in NOTICE is current."""
    assert notice.NOTICE.read_text("utf-8") == notice.render(carried), "run `python -m devkit.notice`"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_everything_in_a_built_program_is_named(release: Release, program: str, architecture: str) -> None:
    """Every module listed in a built program is in NOTICE, and so is Go itself."""
    binary = release.binary(program, architecture)
    listing = subprocess.run(
        [toolchain(), "version", "-m", binary], capture_output=True, text=True, check=True
    ).stdout
    made_by = re.match(rf"{re.escape(str(binary))}: (go\S+)", listing)
    modules = re.findall(r"^\t(?:dep|=>)\t(\S+)\t(\S+)", listing, re.MULTILINE)
    assert made_by
    assert modules
    titles = {f"{path} {version}" for path, version in modules} | {f"{STANDARD_LIBRARY} {made_by[1]}"}
    assert titles <= set(notice.NOTICE.read_text("utf-8").splitlines())


def test_every_component_has_a_licence_and_its_texts(carried: tuple[Component, ...]) -> None:
    """Each component has an SPDX expression of known licences, whose texts are in NOTICE."""
    written = " ".join(notice.NOTICE.read_text("utf-8").split())
    for component in carried:
        assert component.licence, component.title
        for text in component.texts:
            assert text.identity in written, component.title


def test_software_without_a_licence_is_refused(tmp_path: Path) -> None:
    """A module without a licence is an error that names it."""
    (tmp_path / "NOTICE").write_text("Be kind.")
    with pytest.raises(NoticeError, match=rf"{TITLE} has no licence"):
        notice.read_texts(TITLE, tmp_path, ())


def test_an_unknown_licence_is_refused(tmp_path: Path) -> None:
    """An unknown licence is an error that names the module and the file."""
    (tmp_path / "LICENSE").write_text(MIT)
    (tmp_path / "LICENSE.extra").write_text("No use on Sundays.")
    with pytest.raises(NoticeError, match=rf"{TITLE} has a licence that is not known: .*LICENSE\.extra"):
        notice.read_texts(TITLE, tmp_path, ())
