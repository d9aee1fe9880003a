"""Sending secrets to Envoy and comparing them, on the in-memory engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.model.differences import Verdict
from clawker_fw.reconcile import converge, pipeline
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.steps import ConvergeOptions, Create, GiveSecrets, Verify
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.vault import Vault
from clawker_fw.settings.secrets.wanted import wanted
from clawker_fw.stack.envoy.sibling import PATHS
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine

API = {"dst": "api.test", "path_rules": [{"path": "/v1"}], "inject": "api"}
KEY = {"dst": "key.test", "path_rules": [{"path": "/v1"}], "inject": "key"}
HIDDEN = "hidden-token"


@dataclass
class Scene:
    """An engine, and a user with two secrets in files."""

    folder: Path
    release: Release
    engine: MemoryEngine = field(default_factory=MemoryEngine)

    def __post_init__(self) -> None:
        """Write both secrets."""
        declared = SecretsFile.model_validate(
            {
                "secrets": {
                    "api": {"from": {"file": "api"}, "hosts": ["api.test"]},
                    "key": {"from": {"file": "key"}, "hosts": ["key.test"], "header": "x-key"},
                }
            }
        )
        self.declared = declared
        self.write(api=HIDDEN, key=f"{HIDDEN}-2")

    def write(self, **values: str) -> None:
        """Write secrets and mark them as due."""
        for name, value in values.items():
            (self.folder / name).write_text(value)
        self.vault = Vault(self.declared, self.folder / "secrets.yaml")

    def blueprint(self, *rules: Mapping[str, Any]) -> Blueprint:
        """Return the blueprint of a stack with rules."""
        made = stacks.blueprint(self.engine.facts(), *rules, release=self.release)
        needed = wanted(made.rules.rules, self.vault.declared, self.vault.path)
        return replace(made, wanted=needed, headers=self.vault.declared.headers, vault=self.vault)

    def compare(self, *rules: Mapping[str, Any]) -> Comparison:
        """Compare."""
        return pipeline.compare(self.engine, self.blueprint(*rules))

    def run(self, *rules: Mapping[str, Any], needed: bool = True) -> Comparison:
        """Do what `run` does."""
        made = self.blueprint(*rules)
        context = RunContext(lambda _: None)
        return converge.converge(self.engine, lambda: made, ConvergeOptions(secrets_needed=needed), context)

    @property
    def held(self) -> dict[str, str]:
        """The secrets that Envoy has."""
        return {name: value for name, (value, _) in self.engine.inside("clawker-envoy").secrets.items()}

    def fields(self, *rules: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
        """Return the differences: running and desired."""
        return {each.field: (each.running, each.desired) for each in self.compare(*rules).diff.findings}


@pytest.fixture
def scene(tmp_path: Path, release: Release) -> Scene:
    """A scene in which nothing runs yet."""
    return Scene(tmp_path, release)


def test_a_new_stack_has_its_secrets_before_it_serves(scene: Scene) -> None:
    """Envoy gets its secrets after its check and before traffic; then the stack is current."""
    seen = scene.compare(API, KEY)
    steps = seen.plan(ConvergeOptions())
    kinds = [type(step) for step in steps.steps]
    assert kinds.index(Verify) < kinds.index(GiveSecrets)
    assert steps.undoable.stop > next(
        at for at, stage in enumerate(steps.stages) if isinstance(stage[0], GiveSecrets)
    )
    assert HIDDEN not in repr(steps)
    assert scene.run(API, KEY).diff.verdict is Verdict.CURRENT
    assert scene.held == {"api#bearer": f"Bearer {HIDDEN}", "key#raw": f"{HIDDEN}-2"}
    table = scene.engine.inside("clawker-envoy").files[PATHS].content
    assert b"secret:key#raw" in table
    assert b'"x-key"' in table


def test_other_secrets_take_another_envoy(scene: Scene) -> None:
    """A new secret needs a new Envoy, because Envoy requests secrets only at its start."""
    scene.run(API)
    assert Create in [type(step) for step in scene.compare(API, KEY).plan(ConvergeOptions()).steps]
    scene.run(API, KEY)
    assert set(scene.held) == {"api#bearer", "key#raw"}
    seen = scene.compare(KEY)
    assert ("secrets.api#bearer", "given", None) in {
        (each.field, each.running, each.desired) for each in seen.diff.findings
    }
    kinds = [type(step) for step in seen.plan(ConvergeOptions()).steps]
    assert kinds.index(Create) < kinds.index(GiveSecrets)
    scene.run(KEY)
    assert set(scene.held) == {"key#raw"}
    scene.run({"dst": "plain.test"})
    assert scene.held == {}


def test_one_that_can_not_be_obtained_any_more_stays(scene: Scene) -> None:
    """A failing source does not remove the secret that Envoy already has, until it expires."""
    scene.run(API, KEY)
    (scene.folder / "api").unlink()
    scene.write(key=f"{HIDDEN}-3")
    assert scene.fields(API, KEY) == {"secrets.key#raw": ("another secret", "this secret")}
    scene.run(API, KEY, needed=False)
    assert scene.held == {"api#bearer": f"Bearer {HIDDEN}", "key#raw": f"{HIDDEN}-3"}
    scene.vault.expired.add("api")
    assert scene.fields(API, KEY) == {"secrets.api#bearer": ("given", None)}
    scene.run(API, KEY, needed=False)
    assert set(scene.held) == {"key#raw"}
