"""Images by digest from a real registry, on the oldest engine and on the newest."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.engine import pulling
from clawker_fw.engine.docker import DockerEngine, connect
from clawker_fw.errors import EngineError, StoppedError
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import images
from clawker_fw.stack.image_tar import BuiltImage, Entry
from clawker_fw.stack.release import Release
from devkit.engines import PrivateEngine, install_client, private_engine
from devkit.firewall import SIBLINGS, Firewall
from devkit.host import client
from devkit.registry import PASSWORD, USER, Registry, registry

KINDS = ("20.10.24", "29")
"""The oldest engine, with its own image store, and the newest one, with containerd's."""

NOWHERE = "sha256:" + "0" * 64
LAYER_BYTES = 4 << 20

NOBODY = "127.0.0.1:5009"
"""An address without a registry."""


@dataclass(frozen=True)
class Site:
    """An engine with two registries, one with a password. `references` are their images."""

    engine: PrivateEngine
    docker: APIClient
    open: Registry
    closed: Registry
    references: Mapping[str, str]

    def forget(self, reference: str) -> None:
        self.docker.remove_image(reference.replace(":pushed", ""), force=True)


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest,
    needs_engine: Callable[..., None],
    release: Release,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The environment on one kind of engine, without the registries' images."""
    kind: str = request.param
    needs_engine(kind)
    with ExitStack() as stack:
        # By default, an engine tries a layer five times, which takes a minute.
        engine = stack.enter_context(private_engine(kind, settings={"max-download-attempts": 1}))
        docker = stack.enter_context(closing(client(engine.host)))
        open_ = stack.enter_context(registry(engine, tmp_path_factory.mktemp("open")))
        closed = stack.enter_context(registry(engine, tmp_path_factory.mktemp("closed"), port=5001, password=True))
        folder = tmp_path_factory.mktemp("layers")
        references = _pushed(docker, open_, closed, release, folder)
        yield Site(engine, docker, open_, closed, references)


def _pushed(
    docker: APIClient, open_: Registry, closed: Registry, release: Release, folder: Path
) -> dict[str, str]:
    """Fill the registries: Envoy, two CoreDNS, a two-platform index, and unstartable images with unique layers."""
    facts = EngineFacts("", "", docker.version()["Arch"])
    other = EngineFacts("", "", "arm64" if facts.architecture == "amd64" else "amd64")
    # without our labels, because unused images of ours would be removed
    envoy, coredns = (replace(images.bundled(sibling, release, facts), labels={}) for sibling in Sibling)
    foreign = replace(images.bundled(Sibling.COREDNS, release, other), labels={})
    (folder / "newer").write_text("2")
    entries = (*coredns.entries, Entry("etc/newer", folder / "newer"))
    newer = BuiltImage("test/coredns", "2", facts.architecture, entries, labels={})
    plain, vault, changed, silent = (
        _random_image(folder / name, facts) for name in ("plain", "vault", "changed", "silent")
    )
    pushed = {}
    loaded = set[str]()
    for name, image, target in (
        ("envoy", envoy, open_),
        ("newer", newer, open_),
        ("coredns", coredns, open_),
        ("foreign", foreign, open_),
        ("plain", plain, open_),
        ("changed", changed, open_),
        ("silent", silent, open_),
        ("vault", vault, closed),
    ):
        list(docker.load_image(image.archive()))  # type: ignore[no-untyped-call]
        loaded.add(image.reference)
        repository = "coredns" if name == "foreign" else name
        pushed[name] = target.push(docker, image.reference, repository)
    for reference in loaded:
        docker.remove_image(reference)
    assert docker.images(all=True) == []
    here, there = facts.architecture, other.architecture
    pushed["index"] = open_.index("coredns", {there: pushed["foreign"], here: pushed["coredns"]})
    pushed["elsewhere"] = open_.index("coredns", {there: pushed["foreign"]})
    return pushed


def _random_image(path: Path, facts: EngineFacts) -> BuiltImage:
    path.write_bytes(os.urandom(LAYER_BYTES))
    return BuiltImage(f"test/{path.name}", "1", facts.architecture, (Entry("bytes", path),), labels={})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stack's settings file, the same for all tests."""
    return tmp_path_factory.mktemp("settings")


@pytest.fixture
def firewall(site: Site, settings: Path, tmp_path: Path) -> Firewall:
    """A stack in any state: a test begins with a run."""
    return Firewall(site.engine.host, "clawker", settings, variables={"DOCKER_CONFIG": str(tmp_path)})


@pytest.fixture
def engine(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    """The engine as the program connects to it, with a separate docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with closing(connect(site.engine.host, None, {})) as connected:
        yield connected


def pulled(engine: DockerEngine, reference: str) -> list[float]:
    """Pull an image, and return the reported progress."""
    shares: list[float] = []
    engine.pull_image(reference, shares.append)
    return shares


def refused(engine: DockerEngine, reference: str) -> EngineError:
    """Return the error of a failed pull, after checking that the engine lacks the image."""
    with pytest.raises(EngineError) as caught:
        pulled(engine, reference)
    assert engine.image(reference) is None
    assert caught.value.exit_code == 4
    assert caught.value.context or caught.value.code == "pull-stalled"
    assert caught.value.hint
    return caught.value


# --- by digest ------------------------------------------------------------------------------------------------


def test_images_by_digest(firewall: Firewall, site: Site) -> None:
    """Images are pulled first, run, and compared by digest. Another digest is a change of the settings.

    An index selects the engine's platform, and the running container is compared with the index.
    """
    envoy, newer, index = (site.references[name] for name in ("envoy", "newer", "index"))
    firewall.write("a.test", images={"envoy": envoy, "coredns": newer})
    steps = firewall.run().json["steps"]
    assert [step["kind"] for step in steps[:2]] == ["pull-image", "pull-image"]
    assert {step["image"] for step in steps[:2]} == {envoy, newer}
    assert firewall.current()
    assert firewall.run().json["changed"] is False
    firewall.write("a.test")
    assert ("envoy", "image", "id", "settings", "replace") in firewall.drift().findings
    firewall.write("a.test", images={"envoy": envoy, "coredns": index})
    assert firewall.drift().findings == {("coredns", "image", "id", "settings", "replace")}
    steps = firewall.draining("1").run().json["steps"]
    assert [step["image"] for step in steps if step["kind"] == "pull-image"] == [index]
    assert firewall.current()


def test_an_index_without_the_engines_platform(engine: DockerEngine, site: Site) -> None:
    """The error says that there is no image for the engine's platform."""
    error = refused(engine, site.references["elsewhere"])
    assert error.code == "image-other-platform"
    assert f"linux/{engine.facts().architecture}" in error.message


def test_an_image_that_does_not_work_changes_nothing(firewall: Firewall, site: Site) -> None:
    """The old containers keep serving: the pull comes first, and a failed replacement is rolled back.

    Engines pull an image for another platform by its digest.
    """
    before = [site.docker.inspect_container(f"clawker-{each}")["Id"] for each in SIBLINGS]
    absent = site.references["envoy"].partition("@")[0] + f"@{NOWHERE}"
    settings = firewall.settings.read_text()
    firewall.write("a.test", images={"envoy": absent})
    outcome = firewall.call("run").expect(4)
    assert "error[image-not-found]" in outcome.err
    assert absent in outcome.err.replace("\n", "")
    firewall.write("a.test", images={"coredns": site.references["foreign"]})
    outcome = firewall.call("run").expect(5)
    assert "exec format error" in outcome.err, outcome.err
    assert [site.docker.inspect_container(f"clawker-{each}")["Id"] for each in SIBLINGS] == before
    firewall.settings.write_text(settings)
    assert firewall.current()


# --- with a password ------------------------------------------------------------------------------------------


def test_a_login_is_needed(engine: DockerEngine, site: Site, tmp_path: Path) -> None:
    """Without a password, the error says where to log in. With the one from `docker login`, the pull works."""
    reference = site.references["vault"]
    error = refused(engine, reference)
    assert error.code == "image-needs-login"
    assert f"docker login {site.closed.address}" in error.hint
    install_client()
    subprocess.run(
        site.engine.network_argv(
            *("docker", "--host", site.engine.host, "login", "--username", USER, "--password-stdin"),
            site.closed.address,
        ),
        input=PASSWORD.encode(),
        env={**os.environ, "DOCKER_CONFIG": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    assert site.closed.address in (tmp_path / "config.json").read_text()
    with closing(connect(site.engine.host, None, {})) as logged_in:
        pulled(logged_in, reference)
    assert engine.image(reference) is not None
    site.forget(reference)


def test_a_helper_that_fails(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error tells a failing credential helper from a refusing registry."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text("#!/bin/sh\necho the keyring is locked\nexit 1\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "test"}))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with closing(connect(site.engine.host, None, {})) as engine:
        error = refused(engine, site.references["vault"])
    assert error.code == "credentials-unreadable"
    assert "the keyring is locked" in error.context[0]


# --- registries that have a bad day ---------------------------------------------------------------------------


@contextmanager
def throttled(site: Site, rate: str) -> Iterator[None]:
    """Slow the registries down after the first bytes."""
    queue = ("dev", "lo", "root")
    limit = ("rate", rate, "burst", "128kb", "latency", "1s")
    site.engine.run_in_network(["tc", "qdisc", "add", *queue, "tbf", *limit])
    try:
        yield
    finally:
        site.engine.run_in_network(["tc", "qdisc", "del", *queue])


def test_a_slow_registry_is_waited_for(engine: DockerEngine, site: Site) -> None:
    """However slow the registry is, the pull succeeds and reports progress."""
    reference = site.references["plain"]
    with throttled(site, "8mbit"):
        shares = pulled(engine, reference)
    assert engine.image(reference) is not None
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 1}) > 2, shares
    site.forget(reference)


def test_other_bytes_are_refused(engine: DockerEngine, site: Site) -> None:
    """A layer with another digest is refused, and the error names the registry."""
    manifest = json.loads(site.open.blob(site.references["changed"].partition("@")[2]).read_bytes())
    layer = site.open.blob(manifest["layers"][0]["digest"])
    content = layer.read_bytes()
    layer.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    error = refused(engine, site.references["changed"])
    assert error.code == "image-other-bytes", error.context
    assert site.open.address in error.message


def test_a_registry_that_is_away(engine: DockerEngine) -> None:
    """The error names the registry."""
    error = refused(engine, f"{NOBODY}/a@{NOWHERE}")
    assert error.code == "image-not-pulled", error.context
    assert NOBODY in error.message


def test_a_registry_that_falls_silent(engine: DockerEngine, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull without progress is given up."""
    monkeypatch.setattr(pulling, "STALLED_SECONDS", 2)
    with throttled(site, "1kbit"):
        error = refused(engine, site.references["silent"])
    assert error.code == "pull-stalled"
    assert site.open.address in error.hint


def test_a_stop_is_heard_while_a_registry_is_silent(engine: DockerEngine, site: Site) -> None:
    """Ctrl-C ends a pull at any time, even if the registry is silent."""
    asked: list[float] = []

    def stop(share: float) -> None:
        asked.append(share)
        if len(asked) > 20:
            raise StoppedError("stopped", "Stopped on request.")

    with throttled(site, "1kbit"), pytest.raises(StoppedError):
        engine.pull_image(site.references["silent"], stop)
