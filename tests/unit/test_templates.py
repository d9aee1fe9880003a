"""A file is what its template says, each time."""

from pathlib import Path

from clawker_fw.stack import templates
from clawker_fw.stack.release import Release
from devkit import stacks

NAMES = ("telemetry_path", "telemetry_socket", "policy_path", "policy_socket")
VIEW = dict.fromkeys(NAMES, "/fw/a")
TEMPLATE = "Corefile.j2"


def test_another_view_or_template_is_rendered(release: Release, tmp_path: Path) -> None:
    """An upgrade that changes a template changes what is rendered, also in a process that has rendered before."""
    before = templates.render(release, TEMPLATE, VIEW)
    assert b"policy /fw/a /fw/a" in before
    assert b"policy /fw/b /fw/a" in templates.render(release, TEMPLATE, VIEW | {"policy_path": "/fw/b"})
    other = stacks.copied_release(tmp_path)
    stacks.change_file(other.templates / TEMPLATE, lambda text: text + b"# new\n")
    assert templates.render(Release(other.package), TEMPLATE, VIEW) == before + b"# new\n"
