"""The table of configurations in `docs/engines.md` matches the tests."""

import re
from pathlib import Path

from devkit.hosts import DOCUMENTED, HOSTS

_ROOT = Path(__file__).parents[2]


def test_each_configuration_of_the_page_is_tested() -> None:
    """Each row names a host of the table or existing tests, and each host has a row."""
    page = (_ROOT / "docs/engines.md").read_text().partition("## Configurations")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", page, re.MULTILINE)[2:]
    assert rows == [*DOCUMENTED]
    tested = {each for several in DOCUMENTED.values() for each in several}
    hosts = {host.name for host in HOSTS}
    assert hosts <= tested
    for test in sorted(tested - hosts):
        file, _, name = test.partition("::")
        assert f"def {name}(" in (_ROOT / file).read_text(), test
