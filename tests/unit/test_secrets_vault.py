"""Cached secrets: when sources are queried, and what happens when they fail."""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.rules.paths import Form
from clawker_fw.settings.secrets import vault as vault_module
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.vault import Vault, steady_clock
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
        declared = {
            "once": {"from": {"file": "once"}, "hosts": ["a.test"]},
            "often": {"from": {"file": "often"}, "hosts": ["a.test"], "refresh": 100},
        }
        self.write(once="o1", often="f1")
        found = SecretsFile.model_validate({"secrets": declared})
        self.vault = Vault(found, self.folder / "secrets.yaml", {}, lambda: self.now)

    def write(self, **secrets: str) -> None:
        for name, value in secrets.items():
            (self.folder / name).write_text(value)

    def after(self, seconds: float) -> dict[str, str]:
        self.now += seconds
        return self.vault.values(BOTH)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_source_is_asked_when_it_is_due(scene: Scene) -> None:
    """A source is queried once, or again after its refresh time."""
    assert not scene.vault.due
    assert scene.after(0) == {"once#raw": "o1", "often#bearer": "Bearer f1"}
    assert scene.vault.due == scene.now + 100
    scene.write(once="o2", often="f2")
    assert scene.after(99) == {"once#raw": "o1", "often#bearer": "Bearer f1"}
    assert scene.after(1) == {"once#raw": "o1", "often#bearer": "Bearer f2"}
    basic = WantedSecret("often", Form.BASIC)
    assert set(scene.vault.values((basic, OFTEN))) == {"often#basic", "often#bearer"}


def test_a_source_that_fails_first(scene: Scene) -> None:
    """If the first query fails, there is no secret, and the source's error is kept."""
    (scene.folder / "often").unlink()
    assert scene.after(0) == {"once#raw": "o1"}
    assert list(scene.vault.problems) == ["often"]
    with pytest.raises(SettingsError, match="often can't be obtained"):
        scene.vault.require(BOTH)
    scene.write(often="f1")
    scene.now += 10
    assert scene.vault.require(BOTH) == {"once#raw": "o1", "often#bearer": "Bearer f1"}
    assert scene.vault.problems == {}


def test_a_source_that_fails_later(scene: Scene) -> None:
    """After a failure, the last value is used for one more refresh time, with more frequent queries."""
    scene.after(0)
    (scene.folder / "often").unlink()
    assert scene.after(100)["often#bearer"] == "Bearer f1"
    assert list(scene.vault.problems) == ["often"]
    assert scene.vault.due == scene.now + 5
    assert scene.after(99)["often#bearer"] == "Bearer f1"
    assert scene.vault.due == scene.now + 1
    assert scene.vault.expired == set()
    assert scene.after(1) == {"once#raw": "o1"}
    assert scene.vault.expired == {"often"}
    scene.write(often="f2")
    assert scene.after(300)["often#bearer"] == "Bearer f2"
    assert (scene.vault.problems, scene.vault.expired) == ({}, set())


def test_nothing_of_them_is_shown(scene: Scene) -> None:
    """Values are hidden, because a vault may appear in a traceback."""
    scene.write(once="hidden", often="hidden")
    scene.vault.environment = {"X": "hidden"}
    scene.after(0)
    assert "hidden" not in repr(scene.vault)


@dataclass
class Programs:
    """Secrets from programs that record each of their runs."""

    folder: Path
    now: float = 0.0

    def vault(self, **scripts: str) -> Vault:
        """Return a vault with one program for each secret."""
        declared = {
            name: {
                "from": {"command": ["sh", "-c", f"echo >> {name}.runs; {script}"]},
                "hosts": ["a.test"],
                "refresh": 1000,
            }
            for name, script in scripts.items()
        }
        found = SecretsFile.model_validate({"secrets": declared})
        return Vault(found, self.folder / "secrets.yaml", dict(os.environ), lambda: self.now)

    def runs(self, name: str) -> int:
        return len((self.folder / f"{name}.runs").read_text().splitlines())


def raw(*names: str) -> list[WantedSecret]:
    return [WantedSecret(name, Form.RAW) for name in names]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def test_a_program_that_fails_is_run_less_and_less_often(programs: Programs) -> None:
    """However often its secret is requested, the pause between runs doubles from 5 s up to five minutes."""
    vault = programs.vault(fails="exit 1")
    for second in range(1001):
        programs.now = second
        vault.values(raw("fails"))
    assert programs.runs("fails") == len([0, 5, 10, 20, 40, 80, 160, 320, 620, 920])


def test_a_secret_is_gone_in_time_although_its_source_is_not_asked(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret expires after twice its refresh time, even during a pause."""
    vault = programs.vault(may="cat value")
    (programs.folder / "value").write_text("one")
    vault.values(raw("may"))
    (programs.folder / "value").unlink()
    programs.now = 1995
    monkeypatch.setattr(vault_module, "_SHORTEST_PAUSE", 60.0)
    assert vault.values(raw("may")) == {"may#raw": "one"}
    runs = programs.runs("may")
    assert vault.due == 2000
    programs.now = 2000
    assert vault.values(raw("may")) == {}
    assert vault.expired == {"may"}
    assert programs.runs("may") == runs


def test_nobody_sets_the_clock_of_secrets(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the clock back does not delay a refresh."""
    vault = replace(programs.vault(s="echo fine"), clock=steady_clock)
    vault.values(raw("s"))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert vault.due is not None
    assert 990 < vault.due - vault.clock() <= 1000
