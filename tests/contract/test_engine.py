"""One contract suite for the in-memory engine and a real one."""

import itertools
import re
import time
from dataclasses import replace

import pytest

from clawker_fw.agents.docker_options import parse_ports
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import ConflictError, EngineError, NotFoundError, SubnetTakenError
from clawker_fw.fwctl import Helper, HelperReader
from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.model.desired import Desired
from clawker_fw.model.files import File
from clawker_fw.model.networks import Endpoint
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.plan import creation
from clawker_fw.reconcile.publishing import publish
from clawker_fw.stack import image_tar, images, labels
from clawker_fw.stack.container import HELPER, VOLUME, trust_name
from clawker_fw.stack.files import public, secret
from clawker_fw.stack.name_list import POLICY
from clawker_fw.stack.relay import Publication, relay_spec
from clawker_fw.stack.release import Release
from clawker_fw.stack.topology import free_subnet, publishing_spec
from tests.contract.conftest import answering, commit, created, view


def test_what_an_engine_says_of_itself(engine: EngineWriter) -> None:
    """Its properties, the host's current resources, and the time."""
    facts = engine.facts()
    assert facts.architecture in {"amd64", "arm64"}
    assert [int(part) for part in facts.api_version.split(".")] >= [1, 41]
    first, second = engine.machine(), engine.machine()
    assert first.processors == second.processors >= 1
    assert first.memory == second.memory >= 256 << 20
    assert abs(engine.clock() - time.time()) < 1


def test_networks_are_as_they_were_made(engine: EngineWriter, stack: Desired) -> None:
    """Every field of a network can be read back. Names and subnets are unique."""
    views = {network.name: network for network in engine.networks()}
    for spec in stack.networks.values():
        network = views[spec.name]
        assert (network.driver, network.internal, network.ipv6) == ("bridge", spec.internal, False)
        assert network.gateway == str(spec.gateway)
        assert (network.subnets, network.ip_range) == ((spec.subnet,), spec.ip_range)
        assert dict(spec.labels).items() <= dict(network.labels).items()
        assert dict(spec.options).items() <= dict(network.options).items()
        with pytest.raises(EngineError):
            engine.create_network(spec)
        with pytest.raises(SubnetTakenError):
            engine.create_network(replace(spec, name=f"{spec.name}-other"))


@pytest.mark.usefixtures("stack")
def test_images_have_the_ids_we_computed(engine: EngineWriter, wanted: Blueprint) -> None:
    """A loaded image's id is one of the two known digests; only creating from a missing image is an error."""
    for image in wanted.images.values():
        found = engine.image(image.reference)
        assert found is not None
        assert found.id in image.ids
        assert engine.image(found.id) == found
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


def test_published_ports(engine: EngineWriter, stack: Desired) -> None:
    """A port is published at the requested or a free host port, and by one container at a time."""
    subnet = free_subnet(Role.EGRESS, [each for network in engine.networks() for each in network.subnets], ())
    network = publishing_spec(stack.project, subnet)
    engine.create_network(network)
    place, machine = (stack, stack.networks[Role.AGENTS].subnet, subnet), engine.machine()
    first = relay_spec(*place, Publication(0, parse_ports(["80"])), "a", machine=machine)
    relay = publish(engine, first, None)
    found = view(engine, first.name)
    assert labels.shape_fields(found.shape) | {"environment": sorted(first.shape.environment)} == (
        labels.shape_fields(first.shape)
    )
    (published,) = found.published
    host, at, port = published.split(":")
    assert (host, at.isdigit(), port) == ("127.0.0.1", True, "80/tcp")
    second = relay_spec(*place, Publication(1, parse_ports([f"{at}:81"])), "b", machine=machine)
    with pytest.raises(EngineError):
        publish(engine, second, None)
    assert engine.container(second.name) is None
    engine.remove(relay)
    again = publish(engine, second, None)
    assert view(engine, second.name).published == (f"127.0.0.1:{at}:81/tcp",)
    engine.stop(again)
    assert view(engine, second.name).published == ()
    engine.remove(again)
    engine.remove_network(network.name)


def test_whose_a_container_is(engine: EngineWriter, stack: Desired) -> None:
    """It is ours by its labels and its volume's labels together."""
    ours = created(engine, stack, Sibling.COREDNS)
    spec = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-theirs")
    bare = replace(spec, files={}, shape=replace(spec.shape, mounts=(), networks={}))
    theirs = engine.create_container(bare)
    listed = {each.id: each for each in engine.listing()}
    for container, project in ((ours, stack.project), (theirs, "")):
        assert not labels.lacking(listed[container].labels, stack.project, *labels.MADE_WITH)
        assert (listed[container].project, view(engine, container).project) == (project, project)
        assert dict(listed[container].volumes) == dict(view(engine, container).volumes)
    assert set(listed[ours].volumes) == {VOLUME}
    assert not listed[theirs].volumes
    engine.remove(theirs)


def test_what_files_are_read(engine: EngineWriter, stack: Desired) -> None:
    """Files can be read whether or not the container runs; missing ones are None, unchanged known ones reused."""
    wanted = stack.siblings[Sibling.COREDNS]
    container = created(engine, stack, Sibling.COREDNS)
    policy = wanted.hot[POLICY]
    assert engine.file(container, POLICY) == policy
    assert engine.file(container, "state/nothing") is None
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
    assert engine.file(container, POLICY) is None


def test_secrets_stay_the_programs_own(engine: EngineWriter, stack: Desired) -> None:
    """Mode and owner are kept when files are created, written, applied and copied."""
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
    assert commit(engine, container, changed)["committed"] is True
    assert found() == {"boot/token": first, "hot/key/token": second, "good/hot/key/token": second}
    engine.put_files(container, {"hot/key/token": public(b"anybody's\n")})
    assert found()["hot/key/token"] == public(b"anybody's\n")
    engine.stop(container)
    engine.start(container)
    answering(engine, container)
    assert found() == {"boot/token": first, "hot/key/token": second, "good/hot/key/token": second}
    engine.remove(container)


def test_names_of_containers(engine: EngineWriter, stack: Desired) -> None:
    """Names match exactly, can be changed, and conflict if in use; the lock is based on that."""
    name, other = f"{stack.project}-lock", f"{stack.project}-other"
    spec = ContainerSpec(name, images.lock_image(engine.facts()).reference, {}, Shape(("none",), (), {}))
    container = engine.create_container(spec)
    with pytest.raises(ConflictError):
        engine.create_container(spec)
    assert view(engine, name).id == view(engine, container).id == container
    for inexact in (name[:-1], f"{name}x", stack.project, container[:12]):
        assert engine.container(inexact) is None
    engine.rename(container, other)
    assert view(engine, other).id == container
    second = engine.create_container(spec)
    with pytest.raises(ConflictError):
        engine.rename(second, other)
    for each in (container, second):
        engine.remove(each)


def test_an_address_is_given_once(engine: EngineWriter, running: dict[Sibling, str], stack: Desired) -> None:
    """Two running containers can't have the same fixed address, and nothing of the second one is left."""
    del running
    second = replace(creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns-next"))
    with pytest.raises(EngineError):
        engine.start(engine.create_container(second))
    engine.remove(second.name)


def test_running_siblings_serve_what_they_were_given(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """Loaded digests equal the files', the network is the desired one, and nothing has been refused."""
    for sibling, container in running.items():
        wanted = stack.siblings[sibling]
        assert HelperReader(engine, container).suppressed().refusals == 0
        probe = answering(engine, container)
        assert probe.live == wanted.live
        assert (probe.network, probe.others, probe.processes) == ((), (), ())
        assert probe.program == wanted.shape.command[2:]
        assert set(wanted.shape.networks.values()) <= set(probe.addresses)
        assert not probe.claimed
        found = view(engine, f"{stack.project}-{sibling}")
        assert found.running
        assert (found.reference, found.network_mode in wanted.shape.networks) == (wanted.image.reference, True)
        assert dict(found.connected) == dict(wanted.shape.networks)
    assert not next(each.namespace for each in engine.listing() if each.id == running[Sibling.COREDNS])


def test_the_list_says_who_is_on_a_network(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """The list has each container with its image, owner, age, and endpoint on each network."""

    def place(sibling: Sibling, network: str) -> Endpoint | None:
        (found,) = (each for each in engine.listing() if each.id == running[sibling])
        assert (found.name, found.status) == (f"{stack.project}-{sibling}", "running")
        inspected = view(engine, found.id)
        assert found.image == inspected.image
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


def test_what_was_used_is_known(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """Envoy's recorder starts empty. CoreDNS has none."""
    envoy = Helper(engine, running[Sibling.ENVOY])
    before = envoy.usage()
    assert (before.uses, before.lost) == ((), 0)
    assert before.since <= before.now
    with pytest.raises(EngineError):
        Helper(engine, running[Sibling.COREDNS]).usage()


def test_a_name_is_tried_step_by_step(engine: EngineWriter, running: dict[Sibling, str], stack: Desired) -> None:
    """An attempt ends at the resolver for a name without a rule, and at Envoy for one with a rule.

    Only the resolver can try. A lookup gives the reason for a missing address, and a probe may leave Envoy out.
    It shows whether the service address is held; claiming or releasing it twice is not an error.
    """
    container, service = running[Sibling.COREDNS], str(stack.service_address)
    for _ in range(2):
        Helper(engine, container).claim(0)
        probe = HelperReader(engine, container).probe()
        assert (probe.claimed, service in probe.addresses) == (True, True)
    (refused,) = HelperReader(engine, container).trial("refused.test", "https", 443).steps
    assert (refused.name, refused.ok, refused.outcome) == ("resolve", False, "no such name")
    assert refused.source.rpartition(":")[0] == service
    resolved, connected, *_ = HelperReader(engine, container).trial("a.test", "https", 443).steps
    assert (resolved.name, resolved.ok, connected.name, connected.ok) == ("resolve", True, "connect", True)
    assert resolved.outcome in connected.outcome
    # Envoy's container is on the egress network, so its own attempts say nothing about agents.
    with pytest.raises(EngineError):
        HelperReader(engine, running[Sibling.ENVOY]).trial("a.test", "https", 443)
    unknown = HelperReader(engine, running[Sibling.ENVOY]).lookup("nobody.invalid")
    assert (unknown.addresses, bool(unknown.error)) == ((), True)
    probe = HelperReader(engine, container).probe(envoy=False)
    assert ("envoy" in probe.agents_see, bool(probe.live), probe.error) == (False, True, "")
    for _ in range(2):
        Helper(engine, container).release()
        probe = HelperReader(engine, container).probe()
        assert (probe.claimed, service in probe.addresses) == (False, False)


def test_a_volume_with_a_name_outlives_its_container(engine: EngineWriter, stack: Desired) -> None:
    """It is ours by its labels, keeps its files, and can be removed when unused."""
    name = f"{trust_name(stack.project)}0"
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-filler")
    made = {**labels.ownership_labels(stack.project), labels.TRUST: "0 1"}
    shape = Shape(("x",), (), {}, mounts=(Mount("volume", VOLUME), Mount("volume", f"{VOLUME}/trust", name)))
    filler = replace(wanted, labels=made, shape=shape, files={})
    first = engine.create_container(filler)
    engine.put_files(first, {"trust/roots.pem": public(b"roots")})
    assert engine.unused_volumes(stack.project) == ()
    engine.remove_volume(name)  # which does nothing to one that is in use
    view = engine.container(first)
    assert view
    assert (view.project, view.volumes[f"{VOLUME}/trust"]) == (stack.project, name)
    engine.remove(first)
    (found,) = engine.unused_volumes(stack.project)
    assert (found.name, found.labels) == (name, made)
    assert found in engine.volumes()
    second = engine.create_container(filler)
    assert engine.files(second) == {"trust/roots.pem": public(b"roots")}
    engine.remove(second)
    engine.remove_volume(name)
    assert engine.unused_volumes(stack.project) == ()


def test_removing_is_idempotent(engine: EngineWriter, running: dict[Sibling, str], stack: Desired) -> None:
    """Removing stops a running container; a missing one is no error, and waiters get the last exit code."""
    resolver = running[Sibling.COREDNS]
    waiting = engine.removal(resolver)
    with pytest.raises(TimeoutError):
        waiting.result(0.5)
    engine.stop(resolver)
    exit_code = view(engine, resolver).exit_code
    for container in running.values():
        engine.remove(container)
        engine.remove(container)
    assert waiting.result(30) == exit_code
    assert not [each for each in engine.listing() if each.id in running.values()]
    assert engine.unused_volumes(stack.project) == ()
    for network in engine.networks():
        if network.name.startswith(f"{stack.project}-"):
            engine.remove_network(network.id)
    assert not [network for network in engine.networks() if network.name.startswith(f"{stack.project}-")]


def foreign_images(engine: EngineWriter) -> dict[str, image_tar.BuiltImage]:
    """Return images that are almost ours: with some of our labels, more labels, or another name."""
    every = tuple(image_tar.LABELS.items())
    parts = [dict(part) for size in range(len(every)) for part in itertools.combinations(every, size)]
    made = {
        **{f"labels {sorted(part)}": ("clawker-fw/lock", part) for part in parts},
        "more labels": ("clawker-fw/lock", {**image_tar.LABELS, "dev.clawker.project": "clawker"}),
        "another name": ("clawker-agent/base", dict(image_tar.LABELS)),
    }
    architecture = engine.facts().architecture
    return {
        why: image_tar.BuiltImage(name, "foreign", architecture, (), found) for why, (name, found) in made.items()
    }


def test_images_of_others_are_not_ours_whatever_they_are_labelled(engine: EngineWriter) -> None:
    """An image with only our labels is foreign. One of our form is listed, with our tag only."""
    ours = images.lock_image(engine.facts())
    foreign = foreign_images(engine)
    for image in (ours, *foreign.values()):
        engine.load_image(image.archive(), image.archive_size, lambda _: None)
    listed = {reference: each for each in engine.own_images() for reference in each.references}
    assert listed[ours.reference].id in ours.ids
    assert {why: image.reference for why, image in foreign.items() if image.reference in listed} == {}
    for image in foreign.values():
        assert engine.image(image.reference)
        engine.remove_image(image.reference)
