"""Programs that look into TLS between one agent and one origin, each in turn. Prints what passed as JSON.

It runs in a network namespace of its own (`bench.inspect_peers`). There, the origin has a whole network, and for
each program the kernel leads what the agent's user connects to one of its addresses to this program, which the
agent does not notice. All that is measured share one processor, and the others are for the agent and the origin.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.peer import drive, origin
from bench.processor import agents_seconds, processor_seconds, processors
from bench.quiet import quiet
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from devkit.dns import NameServer
from devkit.envoy import program
from devkit.inspecting import Signing, certificate
from devkit.peers import peer_program
from devkit.programs import free_port, machine
from devkit.signer import Signer
from devkit.stacks import installed_release
from devkit.starting import listens, wait_for
from devkit.waiting import until

OURS, SQUID, MITMPROXY, NGINX, DIRECT = "Envoy", "squid", "mitmproxy", "nginx", "direct"
WAYS = (DIRECT, OURS, SQUID, MITMPROXY, NGINX)
KINDS: Mapping[str, Sequence[str]] = {"new connections": (), "requests, kept alive": ("--kept",)}
NAME, PORT = "a.w.test", 443
_CLIENTS, _WARM_SECONDS = 8, 0.5
_AGENT = 65533
"""The agent's user, whose connections are led to the programs. None of these has it, so theirs are left alone."""
_HERE = "127.0.0.1"
_PLACES = {way: f"198.51.100.{number}" for number, way in enumerate(WAYS, 1)}
"""Where an agent connects to, for each way: all are addresses of the origin (RFC 5737)."""
_PATHS = [{"path": "/v1"}, {"path": "/v1/private", "action": "deny"}, {"path": "/v2", "methods": ["GET"]}]

_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream origin {{ server {origin}:443; keepalive 64; }}
  server {{
    listen {here}:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; keepalive_requests 1000000;
    location / {{
      proxy_pass https://origin; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_ssl_server_name on; proxy_ssl_name $host; proxy_ssl_verify on; proxy_ssl_trusted_certificate {trusted};
    }}
  }}
}}
"""

_SQUID = """
http_port {here}:{other_port}
https_port {here}:{port} intercept ssl-bump generate-host-certificates=on tls-cert={authority} tls-key={key_of_it}
sslcrtd_program /usr/lib/squid/security_file_certgen -s {folder}/certificates -M 16MB
sslcrtd_children 1
tls_outgoing_options cafile={trusted}
acl first at_step SslBump1
ssl_bump peek first
ssl_bump bump all
http_access allow all
cache deny all
hosts_file {folder}/hosts
pid_filename {folder}/pid
cache_log {folder}/log
access_log none
max_filedescriptors 16384
"""


@dataclass(frozen=True, slots=True)
class Files:
    """What all of them are given: an authority and its key, a certificate for the name, and whom to trust."""

    authority: Path
    key_of_it: Path
    certificate: Path
    key: Path
    trusted: Path


def main() -> int:
    """Measure so many rounds of so many seconds."""
    rounds, seconds = int(sys.argv[1]), float(sys.argv[2])
    mine, theirs = processors()
    os.sched_setaffinity(0, mine)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{_PLACES[DIRECT]}/24", "dev", "lo")
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        folder.chmod(0o755)
        agent = folder / "peer"
        shutil.copy(peer_program(machine()), agent)
        trusted = folder / "trusted.pem"
        held.enter_context(origin(agent, trusted, "--https", str(PORT), "--name", NAME))
        files = Files(*_authority(folder), *certificate(folder / "own", NAME), trusted)
        os.sched_setaffinity(0, theirs)
        spent = {
            each: held.enter_context(start(folder / each, files))
            for each, start in ((OURS, _ours), (SQUID, _squid), (MITMPROXY, _mitmproxy), (NGINX, _nginx))
        }
        os.sched_setaffinity(0, mine)
        print(json.dumps(_measured(agent, rounds, seconds, spent)))
    return 0


def _measured(
    agent: Path, rounds: int, seconds: float, spent: Mapping[str, Callable[[], float]]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return what passed each way in each round: a second, in milliseconds, and in a program's microseconds."""
    as_agent = ("setpriv", f"--reuid={_AGENT}", f"--regid={_AGENT}", "--clear-groups")
    common = (f"https://{NAME}/v1/x", "--clients", str(_CLIENTS))
    found: defaultdict[str, defaultdict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for number in range(-1, rounds):  # the first round makes certificates and fills caches, and is not counted
        for kind, arguments in KINDS.items():
            for way in WAYS[:: 1 if number % 2 else -1]:
                quiet(2)
                before, agents = spent[way]() if way in spent else 0, agents_seconds()
                time = str(_WARM_SECONDS if number < 0 else seconds)
                where = ("--connect", _PLACES[way], "--seconds", time)
                passed = drive(agent, *common, *where, *arguments, before=as_agent)
                if number >= 0:
                    used = spent[way]() - before if way in spent else 0
                    found[kind][way].append(
                        {
                            "rate": passed["requests"] / passed["seconds"],
                            "p50": passed["p50_ms"],
                            "p99": passed["p99_ms"],
                            "processor": used / passed["requests"] * 1e6,
                            "agent": (agents_seconds() - agents) / passed["requests"] * 1e6,
                            "failed": passed["failed"],
                        }
                    )
    return {kind: dict(ways) for kind, ways in found.items()}


@contextmanager
def _ours(folder: Path, files: Files) -> Iterator[Callable[[], float]]:
    """Run Envoy and the signer, with a rule for the name."""
    folder.mkdir()
    signer = Signer(folder, kept=False)
    signer.give((NAME,), (), (NAME,))
    signer.start()
    with NameServer((NAME,), _PLACES[DIRECT]) as names, ExitStack() as held:
        held.callback(signer.end)
        proxy = Signing(folder / "envoy", program(installed_release()), names.port, signer, files.trusted)
        held.callback(_end, proxy.process)
        rule = {"dst": NAME, "port": PORT, "path_rules": _PATHS, "allow_private": True}
        proxy.serve(RuleSet.of([RuleEntry.model_validate(rule).rule()]))
        until(proxy.serves)
        _lead(OURS, proxy.ports[PORT])
        yield lambda: sum(map(processor_seconds, (proxy.process.pid, signer.process.pid)))


@contextmanager
def _squid(folder: Path, files: Files) -> Iterator[Callable[[], float]]:
    """Run squid, which looks at a hello, connects to the host, and makes a certificate like the host's."""
    folder.mkdir()
    _run("/usr/lib/squid/security_file_certgen", "-c", "-s", str(folder / "certificates"), "-M", "16MB")
    (folder / "hosts").write_text(f"{_PLACES[SQUID]} {NAME}\n")
    for each in (folder, *folder.rglob("*")):
        shutil.chown(each, "proxy")
    config, port = _configured(folder, _SQUID, files)
    with _started(SQUID, ["squid", "-N", "-f", str(config)], folder, port) as spent:
        yield spent


@contextmanager
def _mitmproxy(folder: Path, files: Files) -> Iterator[Callable[[], float]]:
    """Run mitmproxy, which connects to the host, and makes a certificate like the host's."""
    folder.mkdir()
    both = files.key_of_it.read_bytes() + files.authority.read_bytes()
    (folder / "mitmproxy-ca.pem").write_bytes(both)
    port = free_port()
    options = {"confdir": folder, "ssl_verify_upstream_trusted_ca": files.trusted}
    settings = (word for name, value in options.items() for word in ("--set", f"{name}={value}"))
    words = ("--mode", "transparent", "--listen-host", _HERE, "--listen-port", str(port), "--quiet")
    with _started(MITMPROXY, ["mitmdump", *words, *settings], folder, port) as spent:
        yield spent


@contextmanager
def _nginx(folder: Path, files: Files) -> Iterator[Callable[[], float]]:
    """Run nginx, which has a certificate for the name."""
    folder.mkdir()
    config, port = _configured(folder, _NGINX, files)
    with _started(NGINX, ["nginx", "-c", str(config)], folder, port) as spent:
        yield spent


def _configured(folder: Path, text: str, files: Files) -> tuple[Path, int]:
    """Write a configuration, and return it and the port that it listens on."""
    port = free_port()
    config = folder / "config"
    words = {name: getattr(files, name) for name in Files.__slots__}
    config.write_text(
        text.format(folder=folder, here=_HERE, port=port, other_port=free_port(), origin=_PLACES[DIRECT], **words)
    )
    return config, port


@contextmanager
def _started(name: str, command: Sequence[str], folder: Path, port: int) -> Iterator[Callable[[], float]]:
    """Run a program, and yield what says how many seconds of a processor it has used."""
    output = folder / "output"
    with output.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_for(running, lambda: listens(_HERE, port), output)
        _lead(name, port)
        yield lambda: processor_seconds(running.pid)
    finally:
        _end(running)


def _end(running: "subprocess.Popen[bytes]") -> None:
    running.terminate()
    with suppress(subprocess.TimeoutExpired):
        running.wait(5)
        return
    running.kill()
    running.wait()


def _lead(name: str, port: int) -> None:
    """Have the kernel lead the agent's connections to the address of a program to its port."""
    match = ("-p", "tcp", "-d", _PLACES[name], "--dport", str(PORT), "-m", "owner", "--uid-owner", str(_AGENT))
    _run("iptables", "-t", "nat", "-A", "OUTPUT", *match, "-j", "REDIRECT", "--to-ports", str(port))


def _authority(folder: Path) -> tuple[Path, Path]:
    """Make an authority for those that make certificates, of the kind that ours has."""
    made, key = folder / "authority.pem", folder / "authority.key"
    new = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(made),
    )
    what = ("-days", "2", "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign")
    _run("openssl", "req", "-x509", *new, *what)
    key.chmod(0o644)
    return made, key


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
