"""Tampering with images and their tags."""

from clawker_fw.stack import image_tar
from devkit.hand import Hand
from devkit.host import load
from devkit.stacks import installed_release
from devkit.tampering.way import COREDNS, ENVOY, TAGS, Sign, Tampering, fields


def _reference(hand: Hand, sibling: str) -> str:
    return str(hand.inspect(sibling)["Config"]["Image"])


def _other_image(hand: Hand, reference: str) -> None:
    release = installed_release()
    name, _, version = reference.rpartition(":")
    program = release.binary("coredns", hand.docker.version()["Arch"])
    entries = (image_tar.Entry("coredns", program, 0o755), image_tar.Entry("extra", link="/coredns"))
    other = image_tar.BuiltImage(name, "other", hand.docker.version()["Arch"], entries, labels={})
    load(hand.docker, other)
    hand.docker.tag(other.reference, name, version)
    hand.docker.remove_image(other.reference)


def _run_other_image(hand: Hand) -> None:
    _other_image(hand, "test/other:1")
    hand.recreate(COREDNS, fields(Image="test/other:1"))


IMAGES = (
    Tampering(
        "coredns is recreated from an image with other content",
        _run_other_image,
        (Sign(COREDNS, "image", "id", "replace"),),
    ),
    Tampering(
        "the tag of coredns' image is moved to another image",
        lambda hand: _other_image(hand, _reference(hand, COREDNS)),
        (Sign(COREDNS, "image", "reference", "load"),),
        beside=TAGS,
    ),
    Tampering(
        "the tag of envoy's image is removed",
        lambda hand: hand.docker.remove_image(_reference(hand, ENVOY), force=True),
        (Sign(ENVOY, "image", "reference", "load"),),
        beside=TAGS,
    ),
)
