"""One contract suite for the in-memory engine and a real one."""

import gc
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.engine.docker import connect
from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import ConflictError, EngineError, NotFoundError
from clawker_fw.model import (
    ContainerSpec,
    ContainerView,
    Desired,
    Endpoint,
    Event,
    File,
    Files,
    Probe,
    Shape,
    Sibling,
    Slots,
)
from clawker_fw.reconcile.desired import Blueprint, addressing, capacities, desired
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.plan import creation, staged
from clawker_fw.stack import built, image_tar, images, labels
from clawker_fw.stack.container import HELPER
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.files import public, secret
from clawker_fw.stack.policy import POLICY
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import declared, live_digests, plain
from devkit import stacks
from devkit.waiting import until


@pytest.fixture(params=["memory", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[EngineWriter]:
    """Each engine in turn."""
    if request.param == "memory":
        yield MemoryEngine()
        return
    with closing(connect(request.getfixturevalue("host"), None, {})) as real:
        yield real


@pytest.fixture
def project(engine: EngineWriter, request: pytest.FixtureRequest) -> str:
    """A name for a stack. On a real engine, the fixture of the same name removes the stack afterwards."""
    return "contract" if isinstance(engine, MemoryEngine) else str(request.getfixturevalue("clean_project"))


@pytest.fixture
def wanted(engine: EngineWriter, project: str, release: Release) -> Blueprint:
    """A stack with one rule of each protocol."""
    rules = ("a.test", {"dst": "h.test", "proto": "http"})
    return stacks.blueprint(engine.facts(), *rules, project=project, release=release)


@pytest.fixture
def stack(engine: EngineWriter, wanted: Blueprint) -> Desired:
    """The images and networks of a stack, without containers, and its desired state."""
    for image in (
        *(images.bundled(sibling, wanted.release, wanted.engine) for sibling in Sibling),
        images.lock_image(wanted.engine, wanted.release.digests),
    ):
        shares: list[float] = []
        engine.load_image(image.archive(), image.archive_size, shares.append)
        assert shares[-1] == 1.0
    seen = observe(engine, wanted.project, ())
    should = desired(wanted, addressing(wanted, seen), capacities(wanted, seen), Slots())
    for spec in should.networks.values():
        engine.create_network(spec)
    return should


def created(engine: EngineWriter, stack: Desired, sibling: Sibling) -> str:
    """Create a sibling's container."""
    return engine.create_container(creation(stack.siblings[sibling], f"{stack.project}-{sibling}"))


def answering(engine: EngineWriter, container: str) -> Probe:
    """Return a probe once the program reports what it has loaded."""

    def probe() -> Probe | None:
        try:
            found = engine.probe(container)
        except EngineError:
            return None
        return found if not found.error and all(found.live.values()) else None

    return until(probe)


@pytest.fixture
def running(engine: EngineWriter, stack: Desired) -> Iterator[dict[Sibling, str]]:
    """Both siblings, started and answering."""
    containers = {sibling: created(engine, stack, sibling) for sibling in Sibling}
    for container in containers.values():
        engine.start(container)
    for container in containers.values():
        answering(engine, container)
    yield containers
    for container in containers.values():
        engine.remove(container)


def view(engine: EngineWriter, name: str) -> ContainerView:
    """Return the container with this name."""
    found = engine.container(name)
    assert found is not None
    return found


def test_facts(engine: EngineWriter) -> None:
    """An engine reports its properties."""
    facts = engine.facts()
    assert facts.architecture in {"amd64", "arm64"}
    assert [int(part) for part in facts.api_version.split(".")] >= [1, 41]


def test_the_machine(engine: EngineWriter) -> None:
    """An engine says what its machine has, each time that it is asked."""
    first, second = engine.machine(), engine.machine()
    assert first.processors == second.processors >= 1
    assert first.memory == second.memory >= 256 << 20


def test_networks_are_as_they_were_made(engine: EngineWriter, stack: Desired) -> None:
    """Every field of a network can be read back."""
    views = {network.name: network for network in engine.networks()}
    for spec in stack.networks.values():
        network = views[spec.name]
        assert (network.driver, network.internal, network.ipv6) == ("bridge", spec.internal, False)
        assert network.gateway == str(spec.gateway)
        assert (network.subnets, network.ip_range) == ((spec.subnet,), spec.ip_range)
        assert dict(spec.labels).items() <= dict(network.labels).items()
        assert dict(spec.options).items() <= dict(network.options).items()


def test_a_second_network_of_a_name_is_refused(engine: EngineWriter, stack: Desired) -> None:
    """Names and subnets of networks are unique."""
    for spec in stack.networks.values():
        with pytest.raises(EngineError):
            engine.create_network(spec)
        with pytest.raises(EngineError):
            engine.create_network(replace(spec, name=f"{spec.name}-other"))


def test_images_have_the_ids_we_computed(engine: EngineWriter, stack: Desired, wanted: Blueprint) -> None:
    """The id of a loaded image is one of the two digests that are known in advance."""
    del stack
    for image in wanted.images.values():
        found = engine.image(image.reference)
        assert found is not None
        assert found.id in image.ids
        assert engine.image(found.id) == found


def test_an_image_that_is_not_there(engine: EngineWriter) -> None:
    """A missing image is not an error, but creating a container from it is."""
    absent = "clawker-fw/absent:none"
    assert engine.image(absent) is None
    with pytest.raises(NotFoundError):
        engine.create_container(ContainerSpec("contract-absent", absent, {}, Shape(("x",), (), {})))


@pytest.mark.parametrize("sibling", list(Sibling))
def test_containers_are_as_they_were_made(sibling: Sibling, engine: EngineWriter, stack: Desired) -> None:
    """Shape, labels, image and files can be read back, without the engine's additions."""
    wanted = stack.siblings[sibling]
    container = created(engine, stack, sibling)
    found = view(engine, f"{stack.project}-{sibling}")
    assert (found.id, found.status, found.running) == (container, "created", False)
    assert labels.shape_fields(found.shape) == labels.shape_fields(wanted.shape)
    assert dict(wanted.labels).items() <= dict(found.labels).items()
    assert found.image in wanted.image.ids
    files = engine.files(container)
    assert {path: files[path] for path in wanted.boot} == dict(wanted.boot)
    assert {path: files[path] for path in wanted.hot} == dict(wanted.hot)
    engine.remove(container)


def test_files_that_are_known_are_held_once(engine: EngineWriter, stack: Desired) -> None:
    """For a file equal to the known one, that object is returned; other files are read as they are."""
    wanted = stack.siblings[Sibling.COREDNS]
    container = created(engine, stack, Sibling.COREDNS)
    before = wanted.boot["boot/Corefile"]
    engine.put_files(container, {"boot/Corefile": before.saying(before.content + b"# more\n")})
    for end in (b"", b"x", b"# more\n# and more\n"):
        other = before.saying(before.content + end)
        known = {**wanted.boot, "boot/Corefile": other, "bin/none": public(b"x")}
        found = engine.files(container, known)
        assert found[HELPER] is known[HELPER]
        assert found["boot/Corefile"] == before.saying(before.content + b"# more\n")
        assert "bin/none" not in found
    engine.remove(container)


def test_secrets_stay_the_programs_own(engine: EngineWriter, stack: Desired) -> None:
    """Mode and owner are kept when files are created, written, committed and copied."""
    first, second = secret(b"token 1\n"), secret(b"token 2\n")
    own = {"boot/token": first, "hot/key/token": first}
    coredns = stack.siblings[Sibling.COREDNS]
    wanted = replace(
        coredns, boot={**coredns.boot, "boot/token": first}, hot={"hot/key/token": first, **coredns.hot}
    )
    container = engine.create_container(creation(wanted, f"{stack.project}-coredns"))

    def found() -> dict[str, File]:
        return {path: file for path, file in engine.files(container).items() if path.endswith("token")}

    assert found() == own
    assert all(file.secret for file in found().values())
    engine.start(container)
    answering(engine, container)
    assert found() == {**own, "good/hot/key/token": first}
    changed = replace(wanted, hot={**wanted.hot, "hot/key/token": second})
    engine.put_files(container, staged(changed, ()))
    assert commit(engine, container)["committed"] is True
    assert found() == {"boot/token": first, "hot/key/token": second, "good/hot/key/token": second}
    engine.put_files(container, {"hot/key/token": public(b"anybody's\n")})
    assert found()["hot/key/token"] == public(b"anybody's\n")
    engine.stop(container)
    engine.start(container)
    answering(engine, container)
    assert found() == {"boot/token": first, "hot/key/token": second, "good/hot/key/token": second}
    engine.remove(container)


def test_a_name_is_taken_once(engine: EngineWriter, stack: Desired) -> None:
    """A second container with the same name is a conflict, on which the lock is based."""
    spec = ContainerSpec(
        f"{stack.project}-lock", "clawker-fw/lock:1-" + _lock_tag(engine), {}, Shape(("none",), (), {})
    )
    container = engine.create_container(spec)
    with pytest.raises(ConflictError):
        engine.create_container(spec)
    engine.remove(container)
    engine.remove(engine.create_container(spec))


def _lock_tag(engine: EngineWriter) -> str:
    image = images.lock_image(engine.facts(), stacks.installed_release().digests)
    return image.reference.rpartition("-")[2]


def test_an_address_is_given_once(engine: EngineWriter, running: dict[Sibling, str], stack: Desired) -> None:
    """Two running containers can't have the same fixed address, and nothing of the second one is left."""
    del running
    second = replace(creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns-next"))
    with pytest.raises(EngineError):
        engine.start(engine.create_container(second))
    engine.remove(second.name)


def test_only_exact_names_are_found(engine: EngineWriter, stack: Desired) -> None:
    """Names are matched exactly, unlike by the engine's filter."""
    container = created(engine, stack, Sibling.COREDNS)
    name = f"{stack.project}-coredns"
    assert view(engine, name).id == view(engine, container).id == container
    for other in (name[:-1], f"{name}x", stack.project, container[:12]):
        assert engine.container(other) is None
    engine.remove(container)


def test_running_siblings_serve_what_they_were_given(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """The live digests are those of the files, and the network is the desired one."""
    for sibling, container in running.items():
        wanted = stack.siblings[sibling]
        probe = answering(engine, container)
        assert probe.live == wanted.live
        assert (probe.network, probe.others, probe.processes) == ((), (), ())
        assert probe.program == wanted.shape.command[2:]
        assert set(wanted.shape.networks.values()) <= set(probe.addresses)
        assert not probe.claimed
        found = view(engine, f"{stack.project}-{sibling}")
        assert found.running
        assert dict(found.connected) == dict(wanted.shape.networks)


def test_the_list_says_who_is_on_a_network(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """The list has each container with its image, its owner, and its endpoint on each network."""

    def place(sibling: Sibling, network: str) -> Endpoint | None:
        (found,) = (each for each in engine.listing() if each.id == running[sibling])
        assert (found.name, found.status) == (f"{stack.project}-{sibling}", "running")
        assert found.image == view(engine, found.id).image
        assert dict(found.labels) == dict(stack.siblings[sibling].labels)
        return found.networks.get(f"{stack.project}-{network}")

    for sibling in Sibling:
        found = place(sibling, "net")
        assert found
        assert found.address == stack.siblings[sibling].shape.networks[f"{stack.project}-net"]
        assert re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", found.hardware)
    assert place(Sibling.ENVOY, "egress")
    assert place(Sibling.COREDNS, "egress") is None
    network = next(each.id for each in engine.networks() if each.name == f"{stack.project}-net")
    engine.disconnect(network, running[Sibling.COREDNS])
    assert place(Sibling.COREDNS, "net") is None


def test_a_stopped_container_is_put_back_on_a_network(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """A container that was disconnected and connected again is unchanged, and serves after its start."""
    envoy, wanted = running[Sibling.ENVOY], stack.siblings[Sibling.ENVOY]
    network = f"{stack.project}-egress"
    before = view(engine, envoy)
    engine.disconnect(network, envoy)
    assert network not in view(engine, envoy).shape.networks
    engine.stop(envoy)
    engine.stop(envoy)
    assert view(engine, envoy).status == "exited"
    engine.connect(network, envoy, wanted.shape.networks[network])
    assert dict(view(engine, envoy).shape.networks) == dict(wanted.shape.networks)
    engine.start(envoy)
    assert answering(engine, envoy).network == ()
    after = view(engine, envoy)
    assert dict(after.connected) == dict(wanted.shape.networks)
    assert labels.shape_fields(after.shape) == labels.shape_fields(before.shape)


def test_our_images_are_known_by_their_form(engine: EngineWriter, stack: Desired, release: Release) -> None:
    """An image of ours is listed with its tag, and can't be removed while a container uses it."""
    wanted = stack.siblings[Sibling.COREDNS].image
    image = next(each for each in engine.own_images() if wanted.reference in each.references)
    assert image.id in wanted.ids
    container = created(engine, stack, Sibling.COREDNS)
    engine.remove_image(wanted.reference)
    assert engine.image(wanted.reference)
    engine.remove(container)
    engine.remove_image(wanted.reference)
    engine.remove_image(wanted.reference)
    assert engine.image(wanted.reference) is None
    assert image not in engine.own_images()
    again = images.bundled(Sibling.COREDNS, release, engine.facts())
    engine.load_image(again.archive(), again.archive_size, lambda _: None)


def test_the_service_address_can_be_claimed_and_released(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """The probe shows whether the service address is held; claiming or releasing it twice is not an error."""
    container, address = running[Sibling.COREDNS], str(stack.service_address)
    for _ in range(2):
        engine.run_helper(container, ["claim", "0"], lambda _: None)
        probe = engine.probe(container)
        assert (probe.claimed, address in probe.addresses) == (True, True)
    for _ in range(2):
        engine.run_helper(container, ["release"], lambda _: None)
        probe = engine.probe(container)
        assert (probe.claimed, address in probe.addresses) == (False, False)


def test_a_name_that_nobody_knows_has_no_address(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """A lookup says why there is none."""
    found = engine.lookup(running[Sibling.ENVOY], "nobody.invalid")
    assert found.addresses == ()
    assert found.error


def test_siblings_have_told_of_all_that_they_refused(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """Without a flood, no refusal was only counted."""
    for sibling in Sibling:
        assert engine.suppressed(running[sibling]) == 0


def test_a_name_is_tried_step_by_step(engine: EngineWriter, running: dict[Sibling, str], stack: Desired) -> None:
    """An attempt ends at the resolver for a name without a rule, and goes on to Envoy for one with a rule."""
    container, service = running[Sibling.COREDNS], str(stack.service_address)
    engine.run_helper(container, ["claim", "0"], lambda _: None)
    (refused,) = engine.trial(container, "refused.test", "https", 443).steps
    assert (refused.name, refused.ok, refused.outcome) == ("resolve", False, "no such name")
    assert refused.source.rpartition(":")[0] == service
    resolved, connected, *_ = engine.trial(container, "a.test", "https", 443).steps
    assert (resolved.name, resolved.ok, connected.name, connected.ok) == ("resolve", True, "connect", True)
    assert resolved.outcome in connected.outcome


def test_only_the_resolver_can_try(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """Envoy's container is on the egress network, so what it can do says nothing about agents."""
    with pytest.raises(EngineError):
        engine.trial(running[Sibling.ENVOY], "a.test", "https", 443)


def test_a_probe_may_leave_envoy_out(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """It is then as if no agent had ever looked at Envoy; all else is reported."""
    probe = engine.probe(running[Sibling.COREDNS], envoy=False)
    assert "envoy" not in probe.agents_see
    assert probe.live
    assert not probe.error


def commit(engine: EngineWriter, container: str) -> dict[str, Any]:
    """Commit what is staged."""
    answers: list[dict[str, Any]] = []
    engine.run_helper(container, ["commit"], answers.append)
    (answer,) = answers
    return answer


def _hot(files: Files, folder: str = "") -> dict[str, File]:
    """Return the hot files, or the copies in a folder, without the version of their commit."""
    return {
        path.removeprefix(folder): file.saying(plain(file.content))
        for path, file in files.items()
        if path.startswith(f"{folder}hot/")
    }


def test_hot_files_are_committed_live(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired, wanted: Blueprint, release: Release
) -> None:
    """New files are staged, placed and proven, unwanted files are removed, and the record is updated."""
    changed = stacks.blueprint(
        wanted.engine, "b.test", {"dst": "c.test", "port": 8443}, project=stack.project, release=release
    )
    for blueprint in (changed, wanted):
        seen = observe(engine, stack.project, ())
        should = desired(blueprint, addressing(blueprint, seen), capacities(blueprint, seen), Slots())
        for sibling, container in running.items():
            target = should.siblings[sibling]
            present = [path for path in engine.files(container) if path.startswith("hot/")]
            engine.put_files(container, staged(target, present))
            assert commit(engine, container)["committed"] is True
            files = engine.files(container)
            assert _hot(files) == target.hot
            assert json.loads(files["state/committed.json"].content)["live"] == target.live
            assert not any(path.startswith("stage/") for path in files)
            assert _hot(files, "good/") == target.hot
            assert engine.probe(container).live == target.live


@pytest.mark.parametrize("sibling", list(Sibling))
def test_a_commit_removes_foreign_hot_files(
    sibling: Sibling, engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """A file below `hot/` that the commit does not list is removed, even if the commit does not name it either."""
    container, target = running[sibling], stack.siblings[sibling]
    engine.put_files(container, {"hot/foreign.json": public(b"{}")})
    assert "hot/foreign.json" in engine.files(container)
    engine.put_files(container, staged(target, ()))
    assert commit(engine, container)["committed"] is True
    files = engine.files(container)
    assert _hot(files) == target.hot
    assert _hot(files, "good/") == target.hot


BROKEN = {
    Sibling.ENVOY: (LISTENERS, b'{"resources":[{"@type":"nonsense"}],"version_info":"0"}'),
    Sibling.COREDNS: (POLICY, b"this is no list\n"),
}


@pytest.mark.parametrize("sibling", list(Sibling))
def test_a_file_that_is_refused_is_put_back(
    sibling: Sibling, engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """The old set stays live on disk and in the process, and the answer has what was rejected, and why."""
    container, target = running[sibling], stack.siblings[sibling]
    path, content = BROKEN[sibling]
    hot = {**target.hot, path: public(content)}
    broken = replace(target, hot=hot, live=live_digests(declared(target.boot), hot))
    engine.put_files(container, staged(broken, ()))
    answer = commit(engine, container)
    assert answer["committed"] is False
    assert answer["rejected"] or answer["missing"]
    assert answer["reason"]
    files = engine.files(container)
    assert _hot(files)[path] == target.hot[path]
    assert json.loads(files["state/committed.json"].content)["live"] == target.live
    probe = until(lambda: _live(engine, container, target.live))
    assert not probe.error


def _live(engine: EngineWriter, container: str, wanted: Mapping[str, str]) -> Probe | None:
    probe = engine.probe(container)
    return probe if probe.live == wanted else None


def test_a_drain_ends_when_no_connection_is_left(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """Without connections, it ends at once."""
    lines: list[dict[str, int]] = []
    engine.run_helper(running[Sibling.ENVOY], ["drain", "30"], lines.append)
    assert lines[-1] == {"connections": 0}


def test_a_helper_leaves_no_connection_behind(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """This holds for any number of calls, and independently of garbage collection."""

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    container = running[Sibling.COREDNS]
    engine.probe(container)
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        for _ in range(10):
            engine.probe(container)
        assert open_files() <= before
    finally:
        gc.enable()


def test_a_helper_needs_a_running_container(engine: EngineWriter, stack: Desired) -> None:
    """A probe of a stopped container is an error."""
    container = created(engine, stack, Sibling.ENVOY)
    with pytest.raises(EngineError):
        engine.probe(container)
    with pytest.raises(EngineError):
        engine.run_helper(container, ["drain", "0"], lambda _: None)
    engine.remove(container)


def test_a_program_that_cannot_start_leaves_its_last_words(engine: EngineWriter, stack: Desired) -> None:
    """A sibling without boot files does not start, and logs the reason."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    helper = {path: text for path, text in wanted.files.items() if path.startswith("bin/")}
    shape = replace(wanted.shape, restart="no")
    container = engine.create_container(replace(wanted, shape=shape, files=helper))
    engine.start(container)
    until(lambda: view(engine, wanted.name).status == "exited")
    assert view(engine, wanted.name).exit_code != 0
    assert any("boot/sibling.json" in line for line in engine.last_words(container, 5))
    engine.remove(container)


def test_the_engine_s_clock_is_ours(engine: EngineWriter) -> None:
    """An engine on this machine has the same time."""
    assert abs(engine.clock() - time.time()) < 1


def test_an_agent_s_image_and_network_are_in_its_record(engine: EngineWriter, stack: Desired) -> None:
    """By them it is shown to people, and known whose network it uses."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    container = engine.create_container(wanted)
    found = view(engine, wanted.name)
    assert (found.reference, found.network_mode) == (wanted.image, f"{stack.project}-net")
    assert next(each.namespace for each in engine.listing() if each.id == container) == ""
    engine.remove(container)


def test_a_log_is_read_from_its_end(engine: EngineWriter, stack: Desired) -> None:
    """All lines of a log or the last ones can be read, each with its time. Those of errors are only counted."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    helper = {path: text for path, text in wanted.files.items() if path.startswith("bin/")}
    shape = replace(wanted.shape, restart="no")
    container = engine.create_container(replace(wanted, shape=shape, files=helper))

    def lines(count: int | None, *, follow: bool = False) -> list[bytes]:
        with engine.log(container, count, follow=follow) as log:
            return [line for some in log for line in some]

    assert lines(None) == []
    engine.start(container)
    until(lambda: view(engine, wanted.name).status == "exited")
    whole = lines(None)
    assert whole
    assert lines(len(whole) + 5, follow=True) == whole
    assert lines(1) == whole[-1:]
    assert lines(0) == []
    form = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z .*\n$"
    assert all(re.match(form, line) for line in whole if line)
    with engine.log(container, None, errors=True) as log:
        everything = [line for some in log for line in some]
    assert all(re.match(form, line) for line in everything)
    assert b"boot/sibling.json" in everything[-1]
    engine.remove(container)
    with pytest.raises(NotFoundError), engine.log(container, 1):
        pass


def test_one_file_can_be_read(engine: EngineWriter, stack: Desired) -> None:
    """One file of a volume can be read without the others; one that is not there is None."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    container = engine.create_container(wanted)
    assert engine.file(container, POLICY) == wanted.files[POLICY]
    assert engine.file(container, "state/nothing") is None
    engine.remove(container)
    assert engine.file(container, POLICY) is None


def test_a_program_that_ends_again_and_again_is_counted(engine: EngineWriter, stack: Desired) -> None:
    """The engine counts its restarts of a container, and a start by hand resets the count."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    helper = {path: text for path, text in wanted.files.items() if path.startswith("bin/")}
    container = engine.create_container(replace(wanted, files=helper))
    assert view(engine, wanted.name).restarts == 0
    engine.start(container)

    def waiting() -> ContainerView | None:
        found = view(engine, wanted.name)
        return found if found.status == "restarting" else None

    found = until(waiting)
    assert found.restarts > 0
    assert found.exit_code == 1
    engine.stop(container)
    engine.put_files(container, wanted.files)
    engine.start(container)
    answering(engine, container)
    assert view(engine, wanted.name).restarts == 0
    engine.remove(container)


def test_names_can_be_changed(engine: EngineWriter, stack: Desired) -> None:
    """A renamed container is the same one, and a name in use is a conflict."""
    container = created(engine, stack, Sibling.COREDNS)
    other = created(engine, stack, Sibling.ENVOY)
    engine.rename(container, f"{stack.project}-coredns-next")
    assert view(engine, f"{stack.project}-coredns-next").id == container
    with pytest.raises(ConflictError):
        engine.rename(container, f"{stack.project}-envoy")
    engine.remove(container)
    engine.remove(other)


@contextmanager
def following(engine: EngineWriter) -> Iterator[list[Event]]:
    """Collect an engine's events until the context ends."""
    found: list[Event] = []
    with engine.events() as events:

        def follow() -> None:
            for event in events:
                found.append(event)  # noqa: PERF402 - one by one, as they come

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        yield found
    thread.join(10)
    assert not thread.is_alive()


def happened(events: list[Event], container: str) -> list[str]:
    """Return the events of a container, including those of its networks."""
    return [each.action for each in events if each.container == container]


def test_events_tell_what_happens(engine: EngineWriter, stack: Desired) -> None:
    """Every change of a container causes events in order, with its name and its networks."""
    name = f"{stack.project}-coredns"
    with following(engine) as events:
        container = created(engine, stack, Sibling.COREDNS)
        engine.start(container)
        answering(engine, container)
        engine.put_files(container, {"extra": public(b"x")})
        engine.run_helper(container, ["release"], lambda _: None)
        engine.rename(container, f"{name}-next")
        engine.disconnect(f"{stack.project}-net", container)
        engine.remove(container)
        until(lambda: "destroy" in happened(events, container))
    wanted = [
        *("create", "connect", "start", "extract-to-dir", "exec_start", "rename", "disconnect", "die", "destroy"),
    ]
    actions = iter(happened(events, container))
    assert [action for action in wanted if action in actions] == wanted
    about = [each for each in events if each.container == container]
    assert {each.names[0] for each in about if each.kind == "network"} >= {f"{stack.project}-net"}
    (renamed,) = (each for each in about if each.action == "rename")
    assert renamed.names == (f"{name}-next", name)
    assert "/fw/bin/fwctl release" in {each.words for each in about if each.action == "exec_start"}


def test_looking_is_told_as_commands_and_nothing_else(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """Reading causes no events except for commands in containers, so that a watcher does not wake itself."""
    with following(engine) as events:
        observe(engine, stack.project, ())
        engine.run_helper(running[Sibling.COREDNS], ["release"], lambda _: None)
        until(lambda: any(each.words == "/fw/bin/fwctl release" for each in events))
    ours = [each for each in events if each.container in running.values()]
    commands = {(each.action, each.words) for each in ours if each.action != "health_status"}
    expected = {"/fw/bin/fwctl probe", "/fw/bin/fwctl health", "/fw/bin/fwctl release"}
    assert commands <= {("exec_start", words) for words in expected}
    assert ("exec_start", "/fw/bin/fwctl probe") in commands


def test_removing_is_idempotent(engine: EngineWriter, running: dict[Sibling, str], stack: Desired) -> None:
    """A running container is stopped and removed, and removing a missing one is not an error."""
    for container in running.values():
        engine.remove(container)
        engine.remove(container)
    assert not [each for each in engine.listing() if each.id in running.values()]
    assert engine.orphans(stack.project) == ()
    for network in engine.networks():
        if network.name.startswith(f"{stack.project}-"):
            engine.remove_network(network.id)
    assert not [network for network in engine.networks() if network.name.startswith(f"{stack.project}-")]


# --- what is not ours -----------------------------------------------------------------------------------------


def foreign_images(engine: EngineWriter, release: Release) -> dict[str, image_tar.BuiltImage]:
    """Return images that are almost ours: with some of our labels, more labels, or another name."""
    every = tuple(built.LABELS.items())
    parts = [dict(part) for size in range(len(every)) for part in itertools.combinations(every, size)]
    made = {
        **{f"labels {sorted(part)}": ("clawker-fw/lock", part) for part in parts},
        "more labels": ("clawker-fw/lock", {**built.LABELS, "dev.clawker.project": "clawker"}),
        "another name": ("clawker-agent/base", dict(built.LABELS)),
    }
    architecture = engine.facts().architecture
    return {
        why: image_tar.BuiltImage(name, "foreign", architecture, (), release.digests, found)
        for why, (name, found) in made.items()
    }


def test_images_of_others_are_not_ours_whatever_they_are_labelled(engine: EngineWriter, release: Release) -> None:
    """An image with only our labels is foreign. One of our form is listed, with our tag only."""
    ours = images.lock_image(engine.facts(), release.digests)
    foreign = foreign_images(engine, release)
    for image in (ours, *foreign.values()):
        engine.load_image(image.archive(), image.archive_size, lambda _: None)
    listed = {reference: each for each in engine.own_images() for reference in each.references}
    assert listed[ours.reference].id in ours.ids
    assert {why: image.reference for why, image in foreign.items() if image.reference in listed} == {}
    for image in foreign.values():
        assert engine.image(image.reference)
        engine.remove_image(image.reference)
