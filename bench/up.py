"""`run` on an empty engine, compared with bare calls that load the same images and start two working containers.

The benchmark starts a private engine, because it removes everything from it.
"""

import json
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from docker import APIClient

from bench.figures import Result, interleaved, ratio
from bench.stage import Stage, engine, stage
from clawker_fw.engine.docker import connect
from clawker_fw.reconcile.desired import built_images
from devkit import stacks
from devkit.engines import INSTALLED
from devkit.firewall import RULES, remove_project
from devkit.hand import Hand

RUNS = 7
AT_MOST_TIMES = 1.5
_BARE = Path(__file__).with_name("bare_up.py")


def measure(place: Stage) -> Result:
    """Bring up a stack on an empty engine in both ways, in alternating order."""
    kind = place.kind or INSTALLED.name
    with engine(kind) as host, stage(host, kind, place.runs) as own:
        return _measure(own)


def _measure(place: Stage) -> Result:
    firewall, docker = place.firewall, place.docker
    firewall.write(*RULES)
    firewall.run()
    folder = firewall.folder / "bare"
    folder.mkdir()
    _prepare(place, folder)
    bare = [sys.executable, str(_BARE), firewall.host, str(folder)]

    def empty_then(seconds: Callable[[], float]) -> float:
        _empty(docker, firewall.project)
        return seconds()

    ways: dict[str, Callable[[], float]] = {
        "clawker-fw run": lambda: firewall.call("run").expect().seconds,
        "the bare calls": lambda: firewall.call_raw(bare).expect().seconds,
    }
    series = interleaved(place.runs or RUNS, {name: partial(empty_then, way) for name, way in ways.items()})
    empty_then(ways["the bare calls"])
    assert firewall.current(), "the bare calls made another stack"
    return Result(
        series=list(series.values()),
        bounds=[ratio("run / the bare calls", AT_MOST_TIMES, series["clawker-fw run"], series["the bare calls"])],
    )


def _prepare(place: Stage, folder: Path) -> None:
    """Write the input of the bare calls, read from a running stack."""
    hand, docker = Hand(place.docker, place.firewall, place.peers), place.docker
    with closing(connect(place.firewall.host, None, {})) as reader:
        built = built_images(stacks.blueprint(reader.facts()))
    images = {f"{sibling}-image.tar": image for sibling, image in built.items()}
    for name, image in images.items():
        with (folder / name).open("wb") as tar:
            tar.writelines(image.archive())
    recipes = {hand.name(sibling): hand.recipe(sibling) for sibling in built}
    for name, recipe in recipes.items():
        (folder / f"{name}.tar").write_bytes(recipe.files)
    plan = {
        "images": list(images),
        "networks": [
            {
                "name": network["Name"],
                "driver": network["Driver"],
                "internal": network["Internal"],
                "ipam": network["IPAM"],
                "options": network["Options"],
                "labels": network["Labels"],
            }
            for network in docker.networks(names=[place.firewall.project])
        ],
        "containers": {name: {"body": each.body, "networks": each.networks} for name, each in recipes.items()},
    }
    (folder / "plan.json").write_text(json.dumps(plan))


def _empty(docker: APIClient, project: str) -> None:
    """Remove everything from the engine, including images."""
    remove_project(docker, project)
    for image in docker.images(quiet=True):
        docker.remove_image(image, force=True)
    assert not docker.images(quiet=True)
    assert not docker.containers(all=True)
