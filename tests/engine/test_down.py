"""What is left after `down`: nothing that another stack, or somebody else, does not use."""

from dataclasses import replace

from docker import APIClient

from clawker_fw.stack.labels import PURPOSE
from devkit.firewall import Firewall


def test_down_all_leaves_no_image_either(up: Firewall, docker: APIClient) -> None:
    """Plain `down` names our images, `--all` removes them. Used and foreign images stay."""
    other = replace(up, project=f"{up.project}x")
    other.run()
    used = {docker.inspect_container(other.container(sibling))["Image"] for sibling in ("envoy", "coredns")}
    up.call("down", "--all").expect()
    assert used <= {image["Id"] for image in docker.images()}
    assert other.current()

    foreign = {image["Id"] for image in docker.images() if PURPOSE not in (image["Labels"] or {})}
    left = other.call("down", "--format", "json").expect().json["left"]
    assert {name.partition(":")[0] for name in left["images"]} >= {"clawker-fw/envoy", "clawker-fw/coredns"}
    assert other.call("down", "--all", "--format", "json").expect().json["left"] == {"images": [], "cache": None}
    there = {image["Id"] for image in docker.images()}
    assert foreign <= there
    assert there.isdisjoint(used)
    up.run()
    assert up.current()
