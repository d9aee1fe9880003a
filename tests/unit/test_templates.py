"""What a template gives is kept, and a kept text is used only for what it was rendered from."""

from pathlib import Path

import pytest

from clawker_fw.digests import Digests
from clawker_fw.stack import templates
from clawker_fw.stack.release import Release
from devkit import stacks

NAMES = ("telemetry_path", "telemetry_socket", "policy_path", "policy_socket")
VIEW = dict.fromkeys(NAMES, "/fw/a")
TEMPLATE = "Corefile.j2"


def written(path: Path, view: dict[str, str]) -> bytes:
    """Render as a command does, with the cache that earlier ones have left."""
    with Digests(path) as digests:
        return templates.render(Release.installed(digests), TEMPLATE, view)


def test_what_was_rendered_needs_no_jinja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command with the same template and view compiles nothing; one with another view does."""
    first = written(tmp_path / "cache.json", VIEW)
    assert b"policy /fw/a /fw/a" in first
    monkeypatch.setattr(templates, "_compiled", lambda _: pytest.fail("compiled"))
    assert written(tmp_path / "cache.json", VIEW) == first
    with pytest.raises(pytest.fail.Exception):
        written(tmp_path / "cache.json", VIEW | {"policy_path": "/fw/b"})


def test_another_template_is_rendered(tmp_path: Path) -> None:
    """An upgrade that changes a template changes what is rendered."""
    before = written(tmp_path / "cache.json", VIEW)
    other = stacks.copied_release(tmp_path / "other")
    stacks.change_file(other.templates / TEMPLATE, lambda text: text + b"# new\n")
    with Digests(tmp_path / "cache.json") as digests:
        assert templates.render(Release(other.package, digests), TEMPLATE, VIEW) == before + b"# new\n"


@pytest.mark.parametrize(
    "damage", [(b"policy /fw/a", b"policy /fw/x"), (b"rendered ", b"rendered x"), (b"{", b"[")]
)
def test_a_damaged_text_is_not_used(damage: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Whatever has happened to the cache, the text is that of the template."""
    first = written(tmp_path / "cache.json", VIEW)
    stacks.change_file(tmp_path / "cache.json", lambda text: text.replace(*damage))
    assert written(tmp_path / "cache.json", VIEW) == first


def test_the_cache_does_not_grow_for_ever(tmp_path: Path) -> None:
    """As many texts are kept as a user's stacks need, the newest ones, and nothing else goes for them."""
    with Digests(tmp_path / "cache.json") as digests:
        digests.remember("another", "kept")
        release = Release.installed(digests)
        views = [VIEW | {"policy_path": f"/fw/{number}"} for number in range(100)]
        for view in views:
            templates.render(release, TEMPLATE, view)
    text = (tmp_path / "cache.json").read_text()
    assert '"another"' in text
    assert "/fw/99 " in text
    assert "/fw/1 " not in text
    assert text.count('"rendered ') < len(views) / 2
