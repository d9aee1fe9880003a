"""Presets and guardrails on the command line, with the in-memory engine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.settings import preset as presets
from clawker_fw.settings import validation
from tests.cli.conftest import Command


def test_presets_are_shown_without_settings_and_engine(command: Command, settings_file: Path) -> None:
    """All presets with their names and versions, or all of one."""
    settings_file.write_text("rules: [")
    lines = command("rules", "presets").out.splitlines()
    assert lines[0] == (
        f"{len(presets.names())} presets: name those that you want in `presets`; "
        "`clawker-fw rules presets NAME` shows all of one."
    )
    assert [line.split()[0] for line in lines[1:]] == ["preset", *presets.names()]
    assert "pypi.org files.pythonhosted.org" in next(line for line in lines if line.startswith("  pip "))
    shown = command("rules", "presets", "go", "github").out
    assert "https sum.golang.org:443    the checksums" in shown
    assert "left out  storage.googleapis.com" in shown
    assert "proof     from the vendor's pages, not tested\n" in shown
    answer = command.json("rules", "presets")
    assert [each["name"] for each in answer["presets"]] == list(presets.names())
    (pip,) = command.json("rules", "presets", "pip")["presets"]
    assert (pip["version"], pip["proof"], pip["rules"][0]["rule"]) == (1, "tested", "https pypi.org:443")
    wrong = command("rules", "presets", "pipp")
    assert wrong.code == 2
    assert "did you mean `pip`?" in wrong.err


def test_rules_say_which_preset_they_are_of(command: Command, settings_file: Path) -> None:
    """The preset appears in the list, in JSON, in the count of `check`, and in `config`."""
    settings_file.write_text(
        "presets:\n- pip\nnever: [.corp.test, {port: 25}]\nrules:\n- dst: a.test\n- dst: pypi.org\n"
    )
    lines = [" ".join(line.split()) for line in command("rules", "list").out.splitlines()]
    assert lines[1] == "https a.test:443 clawker-fw.yaml, line 5"
    assert lines[2].endswith("clawker-fw.yaml, line 2, preset pip; the files that the index names")
    answer = command.json("rules", "list")
    assert [each["preset"] for each in answer["rules"]] == [None, "pip", None]
    assert command("rules", "check").out == "valid  3 rules: 2 in clawker-fw.yaml, 1 in the preset pip\n"
    shown = [" ".join(line.split()) for line in command("config").out.splitlines()]
    assert "presets pip clawker-fw.yaml, line 1" in shown
    assert "never .corp.test, {port: 25} clawker-fw.yaml, line 3" in shown
    settings = command.json("config")["settings"]
    assert {"never": [".corp.test", {"port": 25}]}.items() <= {
        each["key"]: each["value"] for each in settings
    }.items()


def test_a_broken_promise_is_refused_by_every_command(command: Command, settings_file: Path) -> None:
    """The error gives both places, and nothing is applied or written."""
    promise = "never: [.corp.test]\n"
    settings_file.write_text(f"{promise}rules:\n- dst: a.test\n")
    assert command("run").code == 0
    refused = command("rules", "allow", "www.corp.test", "--until", "8h")
    assert refused.code == 3
    assert refused.err.startswith(
        "error[promise-broken]: `never any .corp.test` is promised (clawker-fw.yaml, line 1), and `https www.corp."
    )
    assert "allows some of it (the command line)" in refused.err
    assert "hint: Change the rule, or take the promise back." in refused.err
    assert settings_file.read_text() == f"{promise}rules:\n- dst: a.test\n"
    settings_file.write_text(f"{promise}rules:\n- dst: b.test\n- dst: .corp.test\n")
    for words in (["run"], ["reload"], ["drift"], ["rules", "check"], ["rules", "list"]):
        outcome = command(*words)
        assert outcome.code == 3, words
        assert "clawker-fw.yaml, line 1" in outcome.err
        assert "clawker-fw.yaml, line 4" in outcome.err
    settings_file.write_text(f"{promise}rules:\n- dst: a.test\n")
    assert command("drift").code == 0


@pytest.fixture
def upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which presets can be changed, as by an upgrade."""
    folder = tmp_path / "presets"
    folder.mkdir()
    for name in presets.names():
        (folder / f"{name}.yaml").write_text((presets.FOLDER / f"{name}.yaml").read_text())
    monkeypatch.setattr(presets, "FOLDER", folder)
    yield folder
    forget()


def forget() -> None:
    """Forget what was read, as a new process has."""
    presets.preset.cache_clear()
    validation._validated.cache_clear()  # noqa: SLF001 - nothing else does it


def change(folder: Path, name: str, *replaced: tuple[str, str]) -> None:
    """Change a preset, as another release would; a new process reads it again."""
    text = (folder / f"{name}.yaml").read_text()
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name}.yaml").write_text(text)
    forget()


def causes(answer: Mapping[str, Any]) -> set[str]:
    return {finding["cause"] for sibling in answer["siblings"] for finding in sibling["findings"]}


NEWER = (("version: 1", "version: 2"), ("dst: files.pythonhosted.org", "dst: files.example.org"))


def test_an_upgrade_that_changes_a_preset(command: Command, settings_file: Path, upgraded: Path) -> None:
    """`drift` names added and removed rules with the cause `upgrade`, before `run` applies them."""
    settings_file.write_text("presets: [pip, npm]\nrules:\n- dst: a.test\n")
    assert command("run").code == 0
    assert command("drift").code == 0
    change(upgraded, "pip", *NEWER)
    seen = command("drift")
    assert seen.code == 1
    assert "  upgrade of the preset pip, version 1 → 2\n" in seen.out
    assert "  + https files.example.org:443\n" in seen.out
    assert "  - https files.pythonhosted.org:443\n" in seen.out
    answer = command.json("drift")
    assert causes(answer) == {"upgrade"}
    assert answer["rules"] == {
        "added": ["https files.example.org:443"],
        "removed": ["https files.pythonhosted.org:443"],
        "presets": [
            {
                "preset": "pip",
                "before": 1,
                "after": 2,
                "rules": ["https files.example.org:443", "https files.pythonhosted.org:443"],
            }
        ],
    }
    assert command("run", "--dry-run").code == 1
    settings_file.write_text("presets: [pip, npm]\nrules:\n- dst: b.test\n")
    mixed = command.json("drift")
    assert causes(mixed) == {"settings"}
    assert [each["rules"] for each in mixed["rules"]["presets"]] == [answer["rules"]["presets"][0]["rules"]]
    assert command("run").code == 0
    assert command("drift").code == 0


def test_changes_of_the_settings_are_no_upgrade(command: Command, settings_file: Path, upgraded: Path) -> None:
    """Neither another preset nor a change of an unused preset counts as an upgrade."""
    settings_file.write_text("presets: [pip]\nrules: []\n")
    assert command("run").code == 0
    for text in ("presets: [pip, npm]", "presets: []"):
        settings_file.write_text(f"{text}\nrules: []\n")
        answer = command.json("drift")
        assert causes(answer) == {"settings"}, text
        assert answer["rules"]["presets"] == []
    settings_file.write_text("presets: [pip]\nrules: []\n")
    change(upgraded, "npm", ("dst: registry.npmjs.org", "dst: registry.example.org"))
    assert command("drift").code == 0
