"""Secrets that are kept: when a source is asked, and what is done when it fails."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.rules.paths import Form
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.vault import Vault
from clawker_fw.settings.secrets.wanted import WantedSecret

ONCE, OFTEN = WantedSecret("once", Form.RAW), WantedSecret("often", Form.BEARER)
BOTH = (ONCE, OFTEN)


@dataclass
class Scene:
    """Two secrets in files: one is obtained once, one every 100 s."""

    folder: Path
    now: float = 1_000_000.0
    vault: Vault = field(init=False)

    def __post_init__(self) -> None:
        """Write both."""
        declared = {
            "once": {"from": {"file": "once"}, "hosts": ["a.test"]},
            "often": {"from": {"file": "often"}, "hosts": ["a.test"], "refresh": 100},
        }
        self.write(once="o1", often="f1")
        found = SecretsFile.model_validate({"secrets": declared})
        self.vault = Vault(found, self.folder / "secrets.yaml", {}, lambda: self.now)

    def write(self, **secrets: str) -> None:
        """Write the files."""
        for name, value in secrets.items():
            (self.folder / name).write_text(value)

    def after(self, seconds: float) -> dict[str, str]:
        """Return all values after a time."""
        self.now += seconds
        return self.vault.values(BOTH)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A vault, and a clock."""
    return Scene(tmp_path)


def test_a_source_is_asked_when_it_is_due(scene: Scene) -> None:
    """Once, or again after the time that it says."""
    assert not scene.vault.due
    assert scene.after(0) == {"once#raw": "o1", "often#bearer": "Bearer f1"}
    assert scene.vault.due == scene.now + 100
    scene.write(once="o2", often="f2")
    assert scene.after(99) == {"once#raw": "o1", "often#bearer": "Bearer f1"}
    assert scene.after(1) == {"once#raw": "o1", "often#bearer": "Bearer f2"}
    scene.vault.forget("once")
    assert scene.after(0)["once#raw"] == "o2"
    scene.write(often="f3")
    scene.vault.forget()
    assert scene.after(0)["often#bearer"] == "Bearer f3"


def test_one_secret_in_two_forms_is_asked_for_once(scene: Scene) -> None:
    """Both have the same value."""
    basic = WantedSecret("often", Form.BASIC)
    assert set(scene.vault.values((basic, OFTEN))) == {"often#basic", "often#bearer"}


def test_a_source_that_fails_first(scene: Scene) -> None:
    """There is no secret, and the error of its source."""
    (scene.folder / "often").unlink()
    assert scene.after(0) == {"once#raw": "o1"}
    assert list(scene.vault.problems) == ["often"]
    with pytest.raises(SettingsError, match="often can't be obtained"):
        scene.vault.require(BOTH)
    scene.write(often="f1")
    assert scene.vault.require(BOTH) == {"once#raw": "o1", "often#bearer": "Bearer f1"}
    assert scene.vault.problems == {}


def test_a_source_that_fails_later(scene: Scene) -> None:
    """What it gave last is in use for as long again, and it is asked more often; then it is gone."""
    scene.after(0)
    (scene.folder / "often").unlink()
    assert scene.after(100)["often#bearer"] == "Bearer f1"
    assert list(scene.vault.problems) == ["often"]
    assert scene.vault.due == scene.now + 10
    assert scene.after(99)["often#bearer"] == "Bearer f1"
    assert scene.vault.due == scene.now + 1
    assert scene.vault.expired == set()
    assert scene.after(1) == {"once#raw": "o1"}
    assert scene.vault.expired == {"often"}
    scene.write(often="f2")
    assert scene.after(0)["often#bearer"] == "Bearer f2"
    assert (scene.vault.problems, scene.vault.expired) == ({}, set())


def test_nothing_of_them_is_shown(scene: Scene) -> None:
    """A vault can be in a traceback."""
    scene.write(once="hidden", often="hidden")
    scene.vault.environment = {"X": "hidden"}
    scene.after(0)
    assert "hidden" not in repr(scene.vault)
