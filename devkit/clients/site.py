"""A stack, agents with real clients, and the real servers that they ask, in a simulated internet."""

import json
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import APIClient

from clawker_fw.engine import archive
from devkit.clients.image import DOCUMENTED, HALF, INSPECTED, KEYED, REFUSED, REGISTRIES, TOKEN, WORKS, load
from devkit.clients.registries import Job
from devkit.engines import PrivateEngine, install_client, private_engine
from devkit.firewall import Firewall, Outcome
from devkit.host import client
from devkit.waiting import until
from devkit.world import NAMESERVER, Internet

WEB = "203.0.113.20"
MOVING, MOVED = f"moving.{WORKS}", "203.0.113.23"
"""A name whose answers are the first address and this one, in turns, good for a second."""

GIT = {"one": "203.0.113.21", "two": "203.0.113.22"}
FORBIDDEN = {REFUSED: "203.0.113.66", HALF: "203.0.113.67"}
"""The addresses of names that no agent may reach. The same servers listen there."""

DOCKER_RUN = "docker run $FLAGS"
"""How an agent is started; `$FLAGS` are what `agent flags` prints."""

_AUTHORITIES, _AUTHORITY = "/usr/local/share/ca-certificates", "test.crt"
"""Where the image has the authority of its servers."""

_PORTS = {WEB: (80, 443, 5432), **dict.fromkeys(GIT.values(), (22,))}


@dataclass(frozen=True)
class Surroundings:
    """An engine in a simulated internet, in which the real servers run. `authority` is theirs."""

    engine: PrivateEngine
    docker: APIClient
    image: str
    servers: tuple[str, ...]
    authority: Path


@dataclass(frozen=True)
class Site(Surroundings):
    """One stack and its servers. Agents are started as a user starts them."""

    firewall: Firewall
    flags: str

    def agent(self, script: str, host: str, start: str = DOCKER_RUN) -> Outcome:
        command = f'{start} --rm --env HOST="$HOST" "$IMAGE" sh -ec {shlex.quote(script)}'
        return self.firewall.shell(command, HOST=host, IMAGE=self.image, FLAGS=self.flags)

    def do(self, job: Job) -> Outcome:
        return self.agent(job.script, "", f"{DOCKER_RUN} {job.options}")

    def packets(self, zone: str) -> int:
        listed = self.engine.run_in_network(["iptables", "-nvxL", "INPUT"]).stdout
        (line,) = (line for line in listed.splitlines() if FORBIDDEN[zone] in line)
        return int(line.split()[0])

    def requests(self, host: str) -> list[Mapping[str, Any]]:
        """Return the requests for a host in the web server's log: how, what for, and with which credential."""
        lines = self.docker.logs(self.servers[0], stderr=False).splitlines()
        requests = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [each for each in requests if each["host"] == host]


@contextmanager
def surroundings(folder: Path, more: Path) -> Iterator[Surroundings]:
    """Yield an engine with servers. `more` is a folder of further hosts for the web server."""
    install_client()
    said = folder / "said"
    said.mkdir()
    with private_engine(dns=[NAMESERVER]) as engine, closing(client(engine.host)) as docker, ExitStack() as stack:
        internet = Internet(engine, said, docker.version()["Arch"], stack)
        internet.add(WEB, MOVED, *GIT.values(), *FORBIDDEN.values())
        internet.resolve(
            {f"*.{WORKS}": [WEB]}
            | {MOVING: [f"{WEB}/{MOVED}"]}
            | {f"{name}.{WORKS}": [address] for name, address in GIT.items()}
            | {f"*.{zone}": [address] for zone, address in FORBIDDEN.items()}
            | {f"*.{zone}": [WEB] for zone in (INSPECTED, KEYED, *DOCUMENTED)}
            | {"git.example.com": [GIT["one"]]}
            | {name: [WEB] for name in REGISTRIES}
        )
        for address in FORBIDDEN.values():
            engine.run_in_network(["iptables", "-I", "INPUT", "-d", address])
        image = load(docker)
        servers = [_serve(docker, image, "web", binds=[f"{more}:/srv/more:ro"])]
        servers.append(_serve(docker, image, "git", "one", GIT["one"], *FORBIDDEN.values()))
        servers.append(_serve(docker, image, "git", "two", GIT["two"]))
        authorities = archive.unpack(docker.get_archive(servers[0], _AUTHORITIES)[0])
        (folder / "authority.pem").write_bytes(authorities[_AUTHORITY].content)
        until(
            lambda: all(engine.answers(f"{address}:{port}") for address, ports in _PORTS.items() for port in ports)
        )
        yield Surroundings(engine, docker, image, tuple(servers), folder / "authority.pem")


@contextmanager
def site(
    around: Surroundings,
    folder: Path,
    rules: tuple[Mapping[str, Any], ...] | None = None,
    *,
    keyed: Sequence[str] = (),
) -> Iterator[Site]:
    """Yield a site with a stack of its own that has these rules, or without a stack.

    The user's secret `token` is for the `keyed` hosts, whose certificates are signed by the image's CA.
    """
    settings = folder / "settings"
    settings.mkdir()
    variables = {"CLAWKER_FW_SECRETS": str(_secrets(folder, keyed))} if keyed else {}
    firewall = Firewall(around.engine.host, f"test{secrets.token_hex(3)}", settings, variables=variables)
    firewall.write(*rules or (), inspection={"ca_file": str(around.authority)})
    if rules is not None:
        firewall.run()
    flags = "" if rules is None else firewall.call("agent", "flags").expect().out.strip()
    yield Site(**vars(around), firewall=firewall, flags=flags)
    firewall.call("down", "--force").expect()


def _serve(docker: APIClient, image: str, *arguments: str, binds: Sequence[str] = ()) -> str:
    """Start servers in the engine's own network, which is the internet here."""
    host = docker.create_host_config(network_mode="host", binds=list(binds))
    made = str(docker.create_container(image, ["sh", "/srv/serve.sh", *arguments], host_config=host)["Id"])
    docker.start(made)
    return made


def _secrets(folder: Path, hosts: Sequence[str]) -> Path:
    (folder / "token").write_text(TOKEN)
    made = folder / "secrets.yaml"
    made.write_text(json.dumps({"secrets": {"token": {"from": {"file": "token"}, "hosts": list(hosts)}}}))
    made.chmod(0o600)
    return made
