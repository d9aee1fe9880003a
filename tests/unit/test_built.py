"""Our images are identified by their form, not by labels alone."""

import itertools
from dataclasses import replace

import pytest

from clawker_fw.engine.translate import is_own_volume
from clawker_fw.model import EngineFacts
from clawker_fw.stack import built, images, labels


@pytest.fixture
def form() -> built.Form:
    """An image of ours as an engine shows it."""
    image = images.lock_image(EngineFacts("1", "1.41", "amd64"))
    layer = f"sha256:{image._layer[0]}"  # noqa: SLF001 - what an engine works out by itself
    return built.Form(
        image.ids[0], (image.reference,), built.LABELS, "amd64", "linux", "1970-01-01T00:00:00Z", (layer,)
    )


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"labels": dict(part)}
            for size in range(len(built.LABELS))
            for part in itertools.combinations(built.LABELS.items(), size)
        ),
        {"labels": {**built.LABELS, "dev.clawker.project": "clawker"}},
        {"references": ("clawker-fw/lock:1-000000000000",)},
        {"references": ("example/lock:1",)},
        {"architecture": "arm64"},
        {"system": "windows"},
        {"created": "2026-01-01T00:00:00Z"},
        {"layers": ("sha256:" + "1" * 64,)},
        {"extras": ("Cmd",)},
    ],
)
def test_an_image_of_another_form_is_not_ours(change: dict[str, object], form: built.Form) -> None:
    """Every part counts: labels (and no further ones), tag, platform, time, layers, settings."""
    assert built.our_references(form) == form.references
    assert built.our_references(replace(form, **change)) == ()  # type: ignore[arg-type]


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
    """Only volumes created with our containers may be removed. Other volumes have a name or other labels."""
    assert is_own_volume({**VOLUME, **change}, "clawker") is ours
