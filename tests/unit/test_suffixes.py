"""Rules for public suffixes and special names are refused with a reason, unless forced."""

import pytest
from publicsuffixlist import PublicSuffixList

from clawker_fw.rules.schema import RuleEntry
from clawker_fw.rules.suffixes import is_registry, is_shared

NO_HOST = "is a public suffix under which others register names, not a host"


@pytest.mark.parametrize(
    ("dst", "reason"),
    [
        ("localhost", "always means the machine itself"),
        ("CO.UK.", NO_HOST),
        ("рф", NO_HOST),
        (".com", "would allow a whole top-level domain"),
        (".github.io", "would allow every site below github.io"),
        (".anything.ck", "would allow every site"),
        ("kobe.jp", NO_HOST),
    ],
)
def test_what_is_no_host_is_refused_unless_it_is_meant(dst: str, reason: str) -> None:
    """The error says why and what to write; `force` makes the rule valid."""
    with pytest.raises(ValueError, match=reason) as caught:
        RuleEntry(dst=dst)
    assert "add `force: true` to the rule" in str(caught.value)
    forced = RuleEntry(dst=dst, force=True).rule()
    assert str(forced.destination) == RuleEntry(dst=dst, force=True).dst


def test_the_list_is_read_as_its_package_reads_it() -> None:
    """For each of the 10,000 entries, the entry and a name one label below it are classified correctly."""
    everything = PublicSuffixList(accept_unknown=False)
    registries = PublicSuffixList(accept_unknown=False, only_icann=True)
    names = [name.lstrip("!*.") for name in everything._publicsuffix]  # noqa: SLF001 - all that there are
    assert len(names) > 9_000
    for name in names:
        for each in (name, f"x.{name}"):
            assert is_shared(each) == everything.is_public(each), each
            assert is_registry(each) == registries.is_public(each), each
