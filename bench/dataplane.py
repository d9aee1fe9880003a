"""What passes through Envoy, against nginx and no proxy: connections, requests, throughput, delays.

All of them forward the same names to the same origin, from a container on the same two networks as Envoy's, with
two workers and no log. `--only WORD` measures only some kinds of traffic.
"""

import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bench.figures import Bound, Result, Series, ratio
from bench.quiet import quiet
from bench.stage import NAMES, Stage
from devkit.engines import EngineError, install, machine_root
from devkit.firewall import RULES
from devkit.peers import Peer
from devkit.waiting import until

RUNS = 5
WORKERS = 2
SECONDS = 2
OURS, NGINX, DIRECT = "Envoy", "nginx", "direct"


@dataclass(frozen=True, slots=True)
class Traffic:
    """A kind of traffic: how it is made, what counts, and how many times as long as with nginx it may take."""

    name: str
    arguments: Sequence[str]
    unit: str
    at_most: float

    def amount(self, driven: Mapping[str, float]) -> float:
        megabytes = driven["bytes"] / 1e6
        return (megabytes if self.unit == "MB/s" else driven["sent"]) / driven["seconds"]


KINDS = (
    Traffic("new TLS connections", ("https://a.test/", "--clients", "8"), "a second", 1.3),
    Traffic("HTTP requests, kept alive", ("http://h.test/", "--clients", "8", "--kept"), "a second", 2.6),
    Traffic("bulk TLS", ("https://a.test/bytes?size=20000000", "--clients", "2", "--kept"), "MB/s", 1.1),
    Traffic("bulk HTTP", ("http://h.test/bytes?size=20000000", "--clients", "2", "--kept"), "MB/s", 2.0),
)

_NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
stream {{
  map $ssl_preread_server_name $to {{ a.test {origin}:443; default ""; }}
  server {{ listen 443 reuseport; ssl_preread on; proxy_pass $to; }}
}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream origin {{ server {origin}:80; keepalive 64; }}
  server {{ listen 80 default_server reuseport; return 403; }}
  server {{
    listen 80; server_name h.test; keepalive_requests 1000000; proxy_max_temp_file_size 0;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
  }}
}}
"""


def measure(stage: Stage) -> Result:
    """Measure each kind of traffic over each way, interleaved."""
    install({"/usr/lib/nginx/modules/ngx_stream_module.so": "libnginx-mod-stream"})
    install({"nginx": "nginx"})
    firewall = stage.firewall
    firewall.write(*RULES, limits={"connections_per_second": 100_000, "requests_per_second": 100_000})
    firewall.run()
    egress = f"{firewall.project}-egress"
    origin = firewall.origin(stage.peers, NAMES)
    agent = firewall.agent(stage.peers)
    inside = stage.peers.start("wait", network=egress)
    agents = firewall.status()["agent"]["network"]
    with _nginx(stage, agents, origin.address(egress)) as beside:
        envoy = stage.docker.inspect_container(firewall.container("envoy"))["NetworkSettings"]["Networks"]
        ways: dict[str, tuple[Peer, str]] = {
            OURS: (agent, str(envoy[agents]["IPAddress"])),
            NGINX: (agent, beside),
            DIRECT: (inside, origin.address(egress)),
        }
        kinds = [each for each in KINDS if not stage.only or any(word in each.name for word in stage.only)]
        found, failed = _interleaved(stage.runs or RUNS, kinds, ways)
    result = Result()
    for kind in kinds:
        series = {name: found[kind.name, name] for name in ways}
        result.series += [each for three in series.values() for each in three]
        amounts = {name: three[0] for name, three in series.items()}
        result.bounds.append(
            ratio(f"{kind.name}: time through Envoy / nginx", kind.at_most, amounts[NGINX], amounts[OURS])
        )
        shares = ", ".join(
            f"{name} {amounts[name].median / amounts[DIRECT].median:.2f}" for name in ways if name != DIRECT
        )
        result.notes.append(f"{kind.name}, share of direct: {shares}")
    result.bounds.append(Bound("failed requests", 0, failed))
    return result


def _interleaved(
    runs: int, kinds: Sequence[Traffic], ways: Mapping[str, tuple[Peer, str]]
) -> tuple[dict[tuple[str, str], tuple[Series, Series, Series]], int]:
    """Return amount, median delay and 99th percentile of each kind of traffic over each way, and the failures."""
    failed = 0
    values: defaultdict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for number in range(-1, runs):  # the first round fills caches and is not counted
        for kind in kinds:
            for name in list(ways)[:: 1 if number % 2 else -1]:
                peer, address = ways[name]
                quiet(2)
                driven = peer.ask(
                    "drive",
                    *kind.arguments,
                    "--connect",
                    address,
                    "--seconds",
                    "0.3" if number < 0 else str(SECONDS),
                ).last
                if number >= 0:
                    failed += driven["failed"]
                    values[kind.name, name].append((kind.amount(driven), driven["p50_ms"], driven["p99_ms"]))
    units = {kind.name: kind.unit for kind in kinds}
    found = {
        (kind, name): (
            Series(f"{kind}, {name}", tuple(each[0] for each in taken), units[kind]),
            Series(f"{kind}, {name}: p50", tuple(each[1] for each in taken), "ms"),
            Series(f"{kind}, {name}: p99", tuple(each[2] for each in taken), "ms"),
        )
        for (kind, name), taken in values.items()
    }
    return found, failed


@contextmanager
def _nginx(stage: Stage, agents: str, origin: str) -> Iterator[str]:
    """Run nginx in the network of a container next to Envoy's, and yield its address for agents."""
    place = stage.peers.start("wait", network=f"{stage.firewall.project}-egress")
    stage.docker.connect_container_to_network(place.container, agents)
    folder = stage.firewall.folder / "nginx"
    folder.mkdir()
    config = folder / "config"
    config.write_text(_NGINX.format(workers=WORKERS, folder=folder, origin=origin))
    process = stage.docker.inspect_container(place.container)["State"]["Pid"]
    root = machine_root(stage.firewall.host)
    command = ["nsenter", f"--net={root}/proc/{process}/ns/net", "nginx", "-c", str(config)]
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as running:
        try:
            address = place.address(agents)
            until(_answers(stage, agents, address))
            yield address
        except TimeoutError:
            raise EngineError(f"nginx does not answer: {log.read_text()}") from None
        finally:
            running.terminate()
            with suppress(subprocess.TimeoutExpired):
                running.wait(5)


def _answers(stage: Stage, network: str, address: str) -> Callable[[], bool]:
    asking = stage.peers.start("wait", network=network)
    return lambda: all(asking.ask("probe-tcp", f"{address}:{port}").ok for port in (80, 443))
