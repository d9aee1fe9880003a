"""The labels and certificates of telemetry on a real engine: what replaces siblings, and what does not."""

from dataclasses import replace
from pathlib import Path

from docker import APIClient

from devkit.firewall import SIBLINGS, Firewall

NOWHERE = "127.0.0.1:4317"
"""An endpoint that Envoy's kernel has no way to: nothing arrives anywhere."""


def test_other_certificates_are_put_into_use_without_a_replacement(
    firewall: Firewall, docker: APIClient, tmp_path: Path
) -> None:
    """Renewed ones and those of another authority are live at once, as both siblings say, and no key is shown.

    So is another share of what is allowed.
    """
    state = tmp_path / "state"
    up = replace(firewall, variables={"XDG_STATE_HOME": str(state)})

    def inspected() -> dict[str, str]:
        found = (docker.inspect_container(up.container(each)) for each in SIBLINGS)
        return {each["Id"]: str(each) for each in found}

    def put_into_use(*findings: str) -> None:
        """Check what differs, and that a run closes it without a new container."""
        assert {".".join(each[1:]) for each in up.drift().findings} == {
            f"{each}.settings.commit" for each in findings
        }
        up.run()
        assert up.current()
        assert inspected().keys() == before.keys()

    up.write("a.test", otel={"endpoint": NOWHERE})
    up.run()
    assert up.current()
    before = inspected()
    telemetry = ("hot.hot/telemetry/telemetry.json", "live.telemetry")
    for arguments in ((), ("--authority",)):
        up.call("certs", "rotate", *arguments).expect()
        put_into_use("hot.hot/cds/clusters.json", "live.clusters", *telemetry)
        shown = up.call("certs", "show", "--format", "json").expect().json
        live = {each["name"]: each["live"] for each in shown["certificates"] if each["path"]}
        assert live == {"ca": ["envoy", "coredns"], "envoy": ["envoy"], "coredns": ["coredns"]}
    up.write("a.test", otel={"endpoint": NOWHERE, "sample": 0.25})
    put_into_use("hot.hot/rtds/sampling.json", "live.sampling", *telemetry)
    keys = [line for path in state.rglob("*.key") for line in path.read_text().splitlines() if "-----" not in line]
    assert keys
    said = [*inspected().values(), *(docker.logs(up.container(each)).decode() for each in SIBLINGS)]
    said += [up.call(*line.split()).out for line in ("drift --diff", "status --format json")]
    assert not [key for key in keys if any(key in text for text in said)]
