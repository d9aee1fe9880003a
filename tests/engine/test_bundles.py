"""A watcher takes up rules that have been promoted in a registry, and stays with the last good ones."""

import http.client
import json
import socket
from pathlib import Path

from devkit.bundles import keys, pushed
from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.registry import own_registry
from devkit.waiting import until
from devkit.watching import watching

NAMES = ("before.test", "after.test")


def test_promoted_rules_are_taken_up(lent: Firewall, peers: Peers, tmp_path: Path) -> None:
    """With `--heal all` an agent reaches what they allow, and the pages show which they are and how old."""
    del peers
    signer = keys(tmp_path, "rules")
    listen = tmp_path / "watch.sock"
    with own_registry(tmp_path) as address:
        staging, production = (f"oci://{address}/team/rules:{tag}" for tag in ("staging", "production"))
        first = pushed(production, signer.private, b"rules: [{dst: before.test}]\n")
        lent.settings.write_text(f"settings: {production}\nbundle_keys: [{signer.public}]\n")
        lent.run()
        options = ("--heal", "all", "--interval", "1h", "--bundle-interval", "1s", "--listen", f"unix:{listen}")
        with watching(lent, *options) as watched:
            promoted = pushed(staging, signer.private, b"rules: [{dst: after.test}]\n")
            before = len(watched.decisions)
            lent.call("bundle", "promote", staging, production).expect()
            healed = watched.healed(since=before)
            assert healed["trigger"] == "event"
            taken = [each for each in watched.records if each["event"] == "bundle_taken"]
            assert [each["digest"] for each in taken] == [promoted.digest]
            allowed = {each: "a rule allows this host" in lent.call("explain", each).out for each in NAMES}
            assert allowed == {"before.test": False, "after.test": True}
            assert lent.current()
            pushed(production, signer.private, b"rules: [{dst: before.test}]\n", created=first.created - 1)
            until(lambda: any(each.get("code") == "bundle-older" for each in watched.records))
            health = json.loads(_page(listen, "/health"))
            (known,) = health["bundles"]
            assert (known["digest"], known["problem"], health["healthy"]) == (
                promoted.digest,
                "bundle-older",
                True,
            )
            assert f'clawker_fw_bundle_info{{digest="{promoted.digest}",reference="{production}"}} 1.0' in _page(
                listen, "/metrics"
            )


def _page(path: Path, target: str) -> str:
    """Return a page that is served at a unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", target)
    content = connection.getresponse().read().decode()
    connection.close()
    return content
