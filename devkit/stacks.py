"""Blueprints and releases for tests, the demo and the benchmarks."""

import functools
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clawker_fw.engine.port import EngineWriter
from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import converge, pipeline
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.model import Settings
from clawker_fw.stack import images
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY, envoy_address
from clawker_fw.stack.release import Release
from devkit.memory.engine import MemoryEngine
from devkit.programs import machine
from hatch_build import compile_program

CHECKOUT = Path(__file__).resolve().parent.parent


def rule_set(*rules: str | Mapping[str, Any], **settings: Any) -> tuple[Settings, RuleSet]:  # noqa: ANN401 - any
    """Return settings with rules. A plain name is a rule with this `dst`."""
    entries = [{"dst": rule} if isinstance(rule, str) else rule for rule in rules]
    chosen = Settings.model_validate({"rules": entries, **settings})
    return chosen, RuleSet.of(entry.rule() for entry in chosen.rules)


def blueprint(
    engine: EngineFacts,
    *rules: str | Mapping[str, Any],
    project: str = "clawker",
    release: Release | None = None,
    **settings: Any,  # noqa: ANN401 - any of the settings
) -> Blueprint:
    chosen, canonical = rule_set(*rules, **settings)
    return Blueprint(project, chosen, canonical, release or installed_release(), engine)


@functools.cache
def installed_release() -> Release:
    """Return this checkout's own release. It is hashed already, so forks of this process need not."""
    release = Release.installed()
    for sibling in Sibling:
        _ = images.bundled(sibling, release, MemoryEngine(machine()).facts()).ids, release.build_sha
    return release


def copied_release(folder: Path) -> Release:
    """Copy this release into a folder, to change it. `PYTHONPATH=folder python -m clawker_fw` runs it."""
    package, copy = CHECKOUT / "clawker_fw", folder / "clawker_fw"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("bin"))
    shutil.copytree(CHECKOUT / "templates", copy / "templates")
    (copy / "bin").mkdir()
    for program in (package / "bin").iterdir():  # which are large
        (copy / "bin" / program.name).symlink_to(program)
    return Release(copy)


def change_file(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file of a copied release, not one that it is a link to. No change is a `ValueError`."""
    before = path.read_bytes()
    content = change(before)
    if content == before:
        raise ValueError(f"{path} has not changed")
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def _change(path: str, old: bytes, new: bytes) -> Callable[[Release], None]:
    return lambda release: change_file(release.package / path, lambda text: text.replace(old, new))


change_corefile = _change("templates/Corefile.j2", b". {\n", b". {\n\n")
"""As a release that hardens the resolver would."""

change_bootstrap = _change("templates/bootstrap.yaml.j2", b"connect_timeout: 10s", b"connect_timeout: 9s")
"""As a release that waits less long would."""

change_envoy_command = _change("stack/envoy/sibling.py", b"DRAIN_SECONDS = 5", b"DRAIN_SECONDS = 6")

_CERTIFICATES = b'    yield Entry("etc/ssl/certs/ca-certificates.crt", Path(certifi.where()))\n'
change_envoy_image = _change(
    "stack/images.py", _CERTIFICATES, _CERTIFICATES + _CERTIFICATES.replace(b"ca-cert", b"cert")
)
"""Root certificates at a second path."""


def change_coredns(release: Release, architecture: str) -> None:
    """Compile another CoreDNS with different content into a copied release, like a security fix."""
    target = release.package / "bin" / f"coredns-linux-{architecture}"
    target.unlink()
    compile_program(
        CHECKOUT / "go" / "cmd" / "coredns",
        target,
        architecture,
        variables={"github.com/coredns/coredns/coremain.GitCommit": "next"},
    )


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without our settings, and with additional variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAWKER_FW_")}
    return kept | variables


def converged(engine: EngineWriter, wanted: Blueprint, options: ConvergeOptions | None = None) -> Comparison:
    """Do what `run` does without a command line, and return the final comparison. No rule ends meanwhile."""
    options = options or ConvergeOptions()
    seen = pipeline.compare(engine, wanted)
    if seen.plan(options).empty:
        converge.tidy(engine, seen, options)
        return seen
    context = RunContext(lambda _: None, wall=lambda: 0.0)
    return converge.converge(engine, lambda: wanted, options, context, seen)


def found(engine: EngineWriter, wanted: Blueprint) -> set[tuple[str, str, str, str, str]]:
    """Return the findings of `drift`: sibling, layer, field, cause and action."""
    return {
        (each.sibling.value, each.layer.value, each.field, each.cause.value, each.action.value)
        for each in pipeline.compare(engine, wanted).diff.findings
    }


def bare_container(name: str, wanted: Blueprint, network: str | None = None) -> ContainerSpec:
    """Return a container that is not ours: an agent, or a foreign container with one of our names."""
    networks = {network: ""} if network else {}
    return ContainerSpec(name, wanted.images[Sibling.COREDNS].reference, {}, Shape((), (), networks))


def never_started(name: str, image: str, found: Mapping[str, str]) -> ContainerSpec:
    """Return a container of ours that does nothing but exist, such as a lock. Its labels say what it is."""
    shape = Shape(("never-started",), (), {}, mounts=(Mount("volume", VOLUME),))
    return ContainerSpec(name, image, found, shape, {"lease": public(b"0")})


def serving(memory: MemoryEngine) -> bool:
    """Whether agents are served: one resolver holds the service address, and points to a running Envoy."""
    running = [memory.inside(each.id) for each in memory.listing() if each.status == "running"]
    holders = [each for each in running if "10.213.1.53" in each.addresses and POLICY in each.files]
    envoys = {each.networks["clawker-net"] for each in running if LISTENERS in each.files}
    return bool(holders) and all(envoy_address(each.files) in envoys for each in holders)
