"""Images by digest, from a real registry."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.engine.docker import connect
from clawker_fw.model import Sibling
from clawker_fw.stack import images
from clawker_fw.stack.images import BuiltImage
from clawker_fw.stack.release import Release
from devkit.engines import PrivateEngine, available, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.registry import push, registry


@pytest.fixture(scope="module")
def engine(require_engine: bool) -> Iterator[PrivateEngine]:  # noqa: FBT001 - a fixture
    """An engine with a registry beside it."""
    if (reason := available()) and not require_engine:
        pytest.skip(f"REGISTRIES ARE NOT TESTED: {reason}")
    with private_engine() as started:
        yield started


@pytest.fixture(scope="module")
def sdk(engine: PrivateEngine) -> Iterator[APIClient]:
    """What a user does with `docker`."""
    with closing(client(engine.host)) as opened:
        yield opened


@pytest.fixture(scope="module")
def references(
    engine: PrivateEngine, sdk: APIClient, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Two Envoys and a CoreDNS in the registry, and no longer on the engine."""
    with registry(engine, tmp_path_factory.mktemp("registry")):
        facts = connect(engine.host, None, {}).facts()
        envoy, coredns = (images.bundled(sibling, release, facts) for sibling in Sibling)
        newer = BuiltImage("test/envoy", "2", facts.architecture, envoy.entries[1:], release.digests, labels={})
        pushed = {}
        for name, image in (("envoy", envoy), ("newer", newer), ("coredns", coredns)):
            list(sdk.load_image(image.archive()))  # type: ignore[no-untyped-call]
            pushed[name] = push(sdk, image.reference, name)
            sdk.remove_image(image.reference)
        yield pushed


@pytest.fixture
def firewall(engine: PrivateEngine, tmp_path: Path) -> Iterator[Firewall]:
    """A stack that is taken down afterwards."""
    made = Firewall(engine.host, "clawker", tmp_path)
    yield made
    made.call("down").expect()


def test_images_by_digest(firewall: Firewall, references: dict[str, str]) -> None:
    """They are pulled, run, and compared by digest; another digest is an upgrade."""
    firewall.write("a.test", images={"envoy": references["envoy"], "coredns": references["coredns"]})
    assert f"pull image {references['envoy']}" in firewall.run().json["steps"]
    assert firewall.current()
    assert firewall.run().json["changed"] is False
    firewall.write("a.test", images={"envoy": references["newer"], "coredns": references["coredns"]})
    assert firewall.drift().findings == {("envoy", "image", "id", "upgrade", "replace")}
    firewall.run("--drain-timeout", "1")
    assert firewall.current()
    firewall.write("a.test")
    assert ("envoy", "image", "id", "upgrade", "replace") in firewall.drift().findings
    firewall.run("--drain-timeout", "1")
    assert firewall.current()


def test_an_image_that_cannot_be_pulled_touches_nothing(
    firewall: Firewall, references: dict[str, str], sdk: APIClient
) -> None:
    """The registry is asked before anything is made anew: what served before serves on."""
    firewall.write("a.test")
    firewall.run()
    before = sdk.inspect_container("clawker-envoy")["Id"]
    firewall.write("a.test", images={"envoy": references["envoy"].partition("@")[0] + "@sha256:" + "0" * 64})
    outcome = firewall.call("run").expect(4)
    assert "could not pull" in outcome.err
    assert sdk.inspect_container("clawker-envoy")["Id"] == before
    firewall.write("a.test")
    assert firewall.current()
