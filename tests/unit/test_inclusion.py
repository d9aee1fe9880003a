"""Included files: their rules, and errors with file and line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.settings.validation import load_settings

Written = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path) -> Written:
    """Write files below a folder, and return the first one's path."""

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path / f"{next(iter(texts))}.yaml"

    return write


def test_the_rules_of_all_files_count(files: Written) -> None:
    """Paths are relative to the settings file. A file that is named twice is read once."""
    path = files(
        main="include: [more/team.yaml, more/../last.yaml, last.yaml]\nrules:\n- dst: main.test\n",
        more__team="rules:\n- dst: team.test\n- dst: main.test\n\n",
        last="rules:\n\n- dst: last.test\n",
    )
    loaded = load_settings(path, {})
    folder = path.parent
    assert {str(rule.destination): rule.place for rule in loaded.rules.rules} == {
        "last.test": f"{folder}/more/../last.yaml, line 3",
        "main.test": f"{folder}/main.yaml, line 3",
        "team.test": f"{folder}/more/team.yaml, line 2",
    }
    assert [file.resolve() for file in loaded.files] == [
        folder / name for name in ("main.yaml", "more/team.yaml", "last.yaml")
    ]


def test_an_included_file_that_has_changed_is_read_again(files: Written) -> None:
    """Settings are cached in memory only while all files stay unchanged."""
    path = files(main="include: [team.yaml]\n", team="rules: [{dst: team.test}]\n")
    assert len(load_settings(path, {}).rules.rules) == 1
    files(team="rules: []\n")
    assert len(load_settings(path, {}).rules.rules) == 0


def test_mistakes_are_told_with_the_file_that_has_them(files: Written) -> None:
    """All errors are reported at once, with their files."""
    path = files(
        main="include: [team.yaml]\nrules:\n- dst: a b\n- dst: ok.test\n",
        team="rules:\n- dst: ok.test\n  port: 0\n",
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    first, second = caught.value.context
    assert first.startswith(f"{path}, line 3: ")
    assert second.startswith(f"{path.with_name('team.yaml')}, line 3: ")


@pytest.mark.parametrize(
    ("texts", "code", "complaint"),
    [
        (
            {"main": "include: [team.yaml]", "team": "include: [main.yaml]\nrules: []"},
            "settings-invalid",
            "team.yaml, line 1: `include` can't be set in an included file",
        ),
        ({"main": "rules: []\ninclude: [none.yaml]"}, "include-unreadable", "main.yaml, line 2: "),
        ({"main": "include: [team.yaml]", "team": ""}, "settings-invalid", "is included, but has no rules"),
        (
            {"main": "include: [team.yaml]", "team": "rules: []\nproject: x"},
            "settings-invalid",
            "team.yaml, line 2: `project` can't be set in an included file",
        ),
        ({"main": "include: team.yaml"}, "settings-invalid", "must be a list of files"),
        (
            {"main": 'rules: []\ninclude: ["a\\0b"]'},
            "include-unreadable",
            "main.yaml, line 2: an included file can't be used: ",
        ),
        ({"main": "include: [.]"}, "include-unreadable", "Is a directory"),
    ],
)
def test_what_can_not_be_included(files: Written, texts: dict[str, str], code: str, complaint: str) -> None:
    """Every impossible include is an error with its place."""
    with pytest.raises(SettingsError) as caught:
        load_settings(files(**texts), {})
    assert caught.value.code == code
    assert complaint in caught.value.message


def test_only_a_regular_file_is_included(files: Written) -> None:
    """Link loops, pipes and devices are refused: reading them could block or never end."""
    path = files(main="include: [loop.yaml]\n")
    loop = path.with_name("loop.yaml")
    loop.symlink_to(loop)
    with pytest.raises(SettingsError, match=r"main\.yaml, line 1: .*loop\.yaml can't be read: ") as caught:
        load_settings(path, {})
    assert caught.value.code == "include-unreadable"
    with pytest.raises(SettingsError, match=r"loop\.yaml can't be read: ") as caught:
        load_settings(loop, {})
    assert caught.value.code == "settings-unreadable"
    path.write_text("include: [pipe.yaml]\n")
    os.mkfifo(path.with_name("pipe.yaml"))
    with pytest.raises(
        SettingsError, match=r"main\.yaml, line 1: .*pipe\.yaml .* is not a regular file"
    ) as caught:
        load_settings(path, {})
    assert caught.value.code == "include-unreadable"
    path.write_text("include: [/dev/zero]\n")
    with pytest.raises(SettingsError, match="/dev/zero can't be read: it is not a regular file"):
        load_settings(path, {})
    link = path.with_name("link.yaml")
    link.symlink_to(files(team="rules: [{dst: team.test}]\n"))
    path.write_text("include: [link.yaml]\n")
    assert len(load_settings(path, {}).rules.rules) == 1


@pytest.mark.parametrize("key", ['"inclu\\x64e"', '? "inclu\\\n  de"\n'])
def test_no_include_is_ignored(key: str, files: Written) -> None:
    """An include written with an escape is followed too; ignoring it could drop deny rules."""
    denied = "rules: [{dst: team.test, action: deny}]\n"
    assert len(load_settings(files(main=f"rules: []\n{key}: [team.yaml]\n", team=denied), {}).rules.rules) == 1


def test_an_include_has_no_variable(files: Written) -> None:
    """There is no variable for includes, because the base of relative paths would be unclear."""
    with pytest.raises(SettingsError) as caught:
        load_settings(files(main="rules: []"), {"CLAWKER_FW_INCLUDE": "[team.yaml]"})
    assert caught.value.code == "variable-unknown"
