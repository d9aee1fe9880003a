"""JSON documents as values: the form of a step."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import get_args

import jsonschema
import pytest

from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import steps
from clawker_fw.reconcile.apply import Progress
from clawker_fw.report import documents
from clawker_fw.report.documents import schemas
from clawker_fw.report.documents.run import DownDocument, Left

ENVOY = Sibling.ENVOY
SUBNET = IPv4Network("10.1.0.0/24")
NETWORK = NetworkSpec("x-net", SUBNET, IPv4Address("10.1.0.1"), SUBNET, True, {}, {})  # noqa: FBT003
CREATED = ContainerSpec("x-envoy-next", "image", {}, Shape((), (), {}))

STEPS: tuple[tuple[steps.Step, dict[str, object]], ...] = (
    (steps.ProvideImage(ENVOY, "a:1", bundled=True), {"kind": "load-image", "sibling": "envoy", "image": "a:1"}),
    (steps.ProvideImage(ENVOY, "a:1", bundled=False), {"kind": "pull-image", "sibling": "envoy", "image": "a:1"}),
    (steps.Examine("x", CREATED), {"kind": "examine", "container": "x-envoy-next"}),
    (steps.CreateNetwork(NETWORK), {"kind": "create-network", "network": "x-net", "subnet": "10.1.0.0/24"}),
    (steps.RemoveNetwork("id", "x-net"), {"kind": "remove-network", "network": "x-net"}),
    (steps.RemoveImage("a:1"), {"kind": "remove-image", "image": "a:1"}),
    (steps.RemoveVolume("0123456789abcdef"), {"kind": "remove-volume", "volume": "0123456789abcdef"}),
    (steps.Detach("id", "x-net", "agent"), {"kind": "detach", "container": "agent", "network": "x-net"}),
    (steps.Create(ENVOY, CREATED, ()), {"kind": "create", "sibling": "envoy", "container": "x-envoy-next"}),
    (
        steps.Verify(ENVOY, "x-envoy-next", {"listeners": "1"}),
        {"kind": "verify", "sibling": "envoy", "container": "x-envoy-next", "live": {"listeners": "sha256:1"}},
    ),
    (steps.Commit(ENVOY, "id", {}, ()), {"kind": "commit", "sibling": "envoy"}),
    (steps.GiveSecrets("id", ("github",), ()), {"kind": "give", "sibling": "envoy", "secrets": ["github"]}),
    (steps.ClaimAddress("id", 1.25, ()), {"kind": "claim", "sibling": "coredns", "seconds": 1.25}),
    (steps.ReleaseAddress("id"), {"kind": "release", "sibling": "coredns"}),
    (steps.AwaitTtl(1.25), {"kind": "wait", "seconds": 1.25}),
    (steps.Drain("id", "x-envoy", 30), {"kind": "drain", "container": "x-envoy", "seconds": 30}),
    (steps.Remove("id", "x-envoy"), {"kind": "remove", "container": "x-envoy"}),
    (steps.Start(ENVOY, "id"), {"kind": "start", "sibling": "envoy"}),
    (steps.Stop(ENVOY, "id", "x-envoy"), {"kind": "stop", "sibling": "envoy"}),
    (steps.Unpause(ENVOY, "id"), {"kind": "unpause", "sibling": "envoy"}),
    (
        steps.Reattach(ENVOY, "id", (("x-net", "10.1.0.2"),)),
        {"kind": "reattach", "sibling": "envoy", "networks": ["x-net"]},
    ),
    (
        steps.Publish(
            replace(CREATED, name="x-relay-0", shape=replace(CREATED.shape, ports=("127.0.0.1::80/tcp",)))
        ),
        {"kind": "publish", "container": "x-relay-0", "ports": ["127.0.0.1::80"]},
    ),
    (steps.Rename(ENVOY, "id", "x-envoy"), {"kind": "rename", "sibling": "envoy", "container": "x-envoy"}),
)


def test_every_step_is_tried() -> None:
    """The list above contains every kind of step."""
    assert {type(step) for step, _ in STEPS} == {*get_args(steps.Step)}


@pytest.mark.parametrize(("step", "fields"), STEPS, ids=[str(fields["kind"]) for _, fields in STEPS])
def test_a_step_is_an_object(step: steps.Step, fields: dict[str, object]) -> None:
    """A step has its kind, its subjects and a line for people."""
    answered = DownDocument.of("x", [Progress(step, 1.0)], Left(()))
    (shown,) = json.loads(documents.text(answered))["steps"]
    assert shown == {**fields, "text": steps.describe(step)}
    jsonschema.validate(json.loads(documents.text(answered)), schemas.schema("down"))
