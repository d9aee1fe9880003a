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
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.steps import (
    AwaitTtl,
    ClaimAddress,
    Commit,
    Create,
    CreateNetwork,
    Detach,
    Drain,
    Examine,
    GiveSecrets,
    ProvideImage,
    Publish,
    Reattach,
    ReleaseAddress,
    Remove,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    Rename,
    Start,
    Step,
    Stop,
    Unpause,
    Verify,
    describe,
)
from clawker_fw.report import documents
from clawker_fw.report.documents import schemas
from clawker_fw.report.documents.run import DownDocument, Left

ENVOY = Sibling.ENVOY
SUBNET = IPv4Network("10.1.0.0/24")
NETWORK = NetworkSpec("x-net", SUBNET, IPv4Address("10.1.0.1"), SUBNET, True, {}, {})  # noqa: FBT003
CREATED = ContainerSpec("x-envoy-next", "image", {}, Shape((), (), {}))

STEPS: tuple[tuple[Step, dict[str, object]], ...] = (
    (ProvideImage(ENVOY, "a:1", bundled=True), {"kind": "load-image", "sibling": "envoy", "image": "a:1"}),
    (ProvideImage(ENVOY, "a:1", bundled=False), {"kind": "pull-image", "sibling": "envoy", "image": "a:1"}),
    (Examine("x", CREATED), {"kind": "examine", "container": "x-envoy-next"}),
    (CreateNetwork(NETWORK), {"kind": "create-network", "network": "x-net", "subnet": "10.1.0.0/24"}),
    (RemoveNetwork("id", "x-net"), {"kind": "remove-network", "network": "x-net"}),
    (RemoveImage("a:1"), {"kind": "remove-image", "image": "a:1"}),
    (RemoveVolume("0123456789abcdef"), {"kind": "remove-volume", "volume": "0123456789abcdef"}),
    (Detach("id", "x-net", "agent"), {"kind": "detach", "container": "agent", "network": "x-net"}),
    (Create(ENVOY, CREATED, ()), {"kind": "create", "sibling": "envoy", "container": "x-envoy-next"}),
    (
        Verify(ENVOY, "x-envoy-next", {"listeners": "1"}, 15),
        {"kind": "verify", "sibling": "envoy", "container": "x-envoy-next", "live": {"listeners": "sha256:1"}},
    ),
    (Commit(ENVOY, "id", {}, ()), {"kind": "commit", "sibling": "envoy"}),
    (GiveSecrets("id", ("github",), ()), {"kind": "give", "sibling": "envoy", "secrets": ["github"]}),
    (ClaimAddress("id", 1.25, ()), {"kind": "claim", "sibling": "coredns", "seconds": 1.25}),
    (ReleaseAddress("id"), {"kind": "release", "sibling": "coredns"}),
    (AwaitTtl(1.25), {"kind": "wait", "seconds": 1.25}),
    (Drain("id", "x-envoy", 30), {"kind": "drain", "container": "x-envoy", "seconds": 30}),
    (Remove("id", "x-envoy"), {"kind": "remove", "container": "x-envoy"}),
    (Start(ENVOY, "id"), {"kind": "start", "sibling": "envoy"}),
    (Stop(ENVOY, "id", "x-envoy"), {"kind": "stop", "sibling": "envoy"}),
    (Unpause(ENVOY, "id"), {"kind": "unpause", "sibling": "envoy"}),
    (
        Reattach(ENVOY, "id", (("x-net", "10.1.0.2"),)),
        {"kind": "reattach", "sibling": "envoy", "networks": ["x-net"]},
    ),
    (
        Publish(replace(CREATED, name="x-relay-0", shape=replace(CREATED.shape, ports=("127.0.0.1::80/tcp",)))),
        {"kind": "publish", "container": "x-relay-0", "ports": ["127.0.0.1::80"]},
    ),
    (Rename(ENVOY, "id", "x-envoy"), {"kind": "rename", "sibling": "envoy", "container": "x-envoy"}),
)


def test_every_step_is_tried() -> None:
    """The list above contains every kind of step."""
    assert {type(step) for step, _ in STEPS} == {*get_args(Step)}


@pytest.mark.parametrize(("step", "fields"), STEPS, ids=[str(fields["kind"]) for _, fields in STEPS])
def test_a_step_is_an_object(step: Step, fields: dict[str, object]) -> None:
    """A step has its kind, its subjects and a line for people."""
    answered = DownDocument.of("x", [Progress(step, 1.0)], Left(()))
    (shown,) = json.loads(documents.text(answered))["steps"]
    assert shown == {**fields, "text": describe(step)}
    jsonschema.validate(json.loads(documents.text(answered)), schemas.schema("down"))
