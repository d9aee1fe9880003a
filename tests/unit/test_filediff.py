"""What differs between two versions of a file."""

import json
from dataclasses import replace

from clawker_fw.model import Action, Cause, Finding, Layer, Sibling
from clawker_fw.report.filediff import unified_diff


def test_large_json_is_spread_over_lines_without_its_version() -> None:
    """One more name among thousands adds one line."""
    names = [f"host{number}.example.com" for number in range(10_000)]
    before, after = (
        json.dumps({"version_info": version, "resources": names + more}, separators=(",", ":")).encode()
        for version, more in (("1", []), ("2", ["new.example.com"]))
    )
    finding = Finding(Sibling.ENVOY, Layer.HOT, "hot/x.json", "one", "other", Cause.SETTINGS, Action.COMMIT)
    diff = list(unified_diff(replace(finding, contents=(before, after))))
    assert '+"new.example.com"]}\n' in diff
    assert not any("version_info" in line for line in diff)
    assert len(diff) < 10
