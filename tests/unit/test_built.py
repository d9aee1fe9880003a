"""Our images are identified by their form, not by labels alone."""

import itertools
from typing import Any

import pytest

from clawker_fw.engine.translate import is_own_volume
from clawker_fw.model.engines import EngineFacts
from clawker_fw.stack import images, labels
from clawker_fw.stack.image_tar import LABELS, our_tags

IMAGE = images.lock_image(EngineFacts("1", "1.41", "amd64"))
SHOWN: dict[str, Any] = {
    "tags": (IMAGE.reference,),
    "image_labels": LABELS,
    "architecture": "amd64",
    "layers": (f"sha256:{IMAGE._layer[0]}",),  # noqa: SLF001 - what an engine works out by itself
}


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"image_labels": dict(part)}
            for size in range(len(LABELS))
            for part in itertools.combinations(LABELS.items(), size)
        ),
        {"image_labels": {**LABELS, "dev.clawker.project": "clawker"}},
        {"tags": ("clawker-fw/lock:1-000000000000",)},
        {"tags": ("example/lock:1",)},
        {"architecture": "arm64"},
        {"layers": ("sha256:" + "1" * 64,)},
        {"layers": (*SHOWN["layers"], *SHOWN["layers"])},
    ],
)
def test_an_image_of_another_form_is_not_ours(change: dict[str, Any]) -> None:
    """An image is ours only if its labels (with no others), tag, platform and layers match."""
    assert our_tags(**SHOWN) == (IMAGE.reference,)
    assert our_tags(**{**SHOWN, **change}) == ()


VOLUME = {"Name": "a" * 64, "Driver": "local", "Options": None, "Labels": labels.ownership_labels("clawker")}


@pytest.mark.parametrize(
    ("change", "ours"),
    [
        ({}, True),
        ({"Labels": {**labels.ownership_labels("clawker"), "com.docker.volume.anonymous": ""}}, True),
        ({"Labels": labels.ownership_labels("other")}, False),
        *(
            ({"Labels": dict(part)}, False)
            for size in range(3)
            for part in itertools.combinations(labels.ownership_labels("clawker").items(), size)
        ),
        ({"Labels": None}, False),
        ({"Labels": {**labels.ownership_labels("clawker"), "more": "1"}}, False),
        ({"Name": "precious"}, False),
        ({"Driver": "nfs"}, False),
        ({"Options": {"type": "none", "o": "bind", "device": "/srv"}}, False),
    ],
)
def test_a_volume_of_ours_has_no_name_and_nothing_else(change: dict[str, object], ours: bool) -> None:  # noqa: FBT001 - a row
    """Only volumes created with our containers may be removed; other volumes have a name or other labels."""
    assert is_own_volume({**VOLUME, **change}, "clawker") is ours
