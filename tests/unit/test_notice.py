"""NOTICE names all third-party software in the programs with its licence, or it is not written."""

import re
import subprocess
from pathlib import Path

import pytest

from clawker_fw.stack.release import Release
from devkit import notice
from devkit.notice import Component, NoticeError, Text
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


def test_the_notice_names_no_place_on_a_machine() -> None:
    """NOTICE contains no path of the machine that wrote it."""
    written = notice.NOTICE.read_text("utf-8")
    for place in (Path.home(), notice.REPOSITORY, toolchain().parent.parent):
        assert f"{place}/" not in written


@pytest.mark.parametrize(
    ("words", "licence"),
    [
        (MIT, "MIT"),
        (MIT.upper().replace("\n", "\n   "), "MIT"),
        (notice.REPOSITORY.joinpath("LICENSE").read_text("utf-8"), "Apache-2.0"),
        ("All rights reserved.", None),
        (MIT + notice.REPOSITORY.joinpath("LICENSE").read_text("utf-8"), None),
    ],
    ids=["MIT", "in another layout", "Apache", "none known", "two in one"],
)
def test_a_licence_is_known_by_its_words(words: str, licence: str | None) -> None:
    """A text is recognized as exactly one licence, whatever its layout, or as none."""
    assert notice.identify(words) == licence


def test_two_clauses_are_told_from_three() -> None:
    """The BSD licences with two and with three clauses are distinguished."""
    two = (
        "Redistributions of source code must retain the above copyright notice. "
        "Redistributions in binary form must reproduce the above copyright notice."
    )
    assert notice.identify(two) == "BSD-2-Clause"
    assert notice.identify(f"{two} Neither the name of the owner may be used.") == "BSD-3-Clause"


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


def test_texts_are_those_of_what_is_compiled(tmp_path: Path) -> None:
    """Texts are found next to and above the compiled files, or by reference; others are ignored."""
    for path, words in {
        "COPYING": MIT,
        "NOTICE.txt": "Made by others.",
        "PATENTS": "A grant.",
        "LICENSE.go": "package module",
        "used/a.go": "// See the file LICENSE_list.\n\npackage used\n\n// and LICENSE_other\n",
        "used/LICENSE": MIT.replace("2026", "2025"),
        "elsewhere/LICENSE_list": MIT.replace("2026", "2024"),
        "elsewhere/LICENSE_other": "No use on Sundays.",
        "elsewhere/LICENSE": "No use on Mondays.",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(words)

    texts = notice.read_texts(TITLE, tmp_path, [tmp_path / "used" / "a.go"])

    found = [(text.kind, next(iter(re.findall(r"\d{4}", text.words)), "")) for text in texts]
    assert found == [("MIT", "2026"), ("MIT", "2025"), ("MIT", "2024"), ("NOTICE", ""), ("PATENTS", "")]


def test_a_text_that_is_shared_is_printed_once() -> None:
    """Texts that only differ in white space appear once, with all their components."""
    first = Component("example.test/one", "v1", ("fwctl",), (Text("MIT", MIT.strip()),))
    second = Component("example.test/two", "v2", ("coredns", "fwctl"), (Text("MIT", MIT.replace("\n", "\n\n")),))
    written = notice.render([first, second])
    assert written.count("Permission is hereby granted") == 1
    assert "example.test/two v2\n  licence MIT, in coredns and fwctl, text 1\n" in written
    assert "for\n    example.test/one v1\n    example.test/two v2\n" in written


def test_check_says_that_a_notice_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` exits with 1, writes nothing and says how to write the file, until it is current."""
    monkeypatch.setattr(notice, "NOTICE", tmp_path / "NOTICE")
    assert notice.main(["--check"]) == 1
    assert "`python -m devkit.notice` writes it" in capsys.readouterr().err
    assert not notice.NOTICE.exists()
    assert notice.main([]) == 0
    assert notice.main(["--check"]) == 0


def test_what_can_not_be_named_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error ends the command with exit code 1 and one sentence, and does not change the file."""

    def fail() -> tuple[Component, ...]:
        raise NoticeError(f"{TITLE} has no licence.")

    monkeypatch.setattr(notice, "NOTICE", tmp_path / "NOTICE")
    monkeypatch.setattr(notice, "components", fail)
    assert notice.main([]) == 1
    assert capsys.readouterr().err == f"NOTICE can't be written: {TITLE} has no licence.\n"
    assert not notice.NOTICE.exists()
