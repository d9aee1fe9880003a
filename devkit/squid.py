"""Debian's Squid as a company's proxy, and broken proxies, in the network of an engine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from docker import APIClient

from devkit.clients.image import WORKS
from devkit.clients.site import MOVED, WEB
from devkit.engines import PrivateEngine
from devkit.waiting import until
from devkit.world import NAMESERVER

NAME = f"proxy.{WORKS}"
OPEN, BASIC, TLS = 3128, 3129, 3130
"""The ports: everybody may use the first one for everything, and the others take user and password."""

PASSWORD = "corp:let-me-out"  # noqa: S105 - of no use anywhere else
DENIED = f"denied.{WORKS}"

SILENT, RUBBISH = 4001, 4002
"""The ports of proxies that never answer, and that answer in another protocol."""

_SENT = "%{Proxy-Authorization}>h"
_CONFIGURATION = f"""
http_port {WEB}:{OPEN}
http_port {MOVED}:{OPEN}
http_port {WEB}:{BASIC}
https_port {WEB}:{TLS} tls-cert=/srv/tls/cert.pem tls-key=/srv/tls/key.pem
pid_filename none
cache deny all
pinger_enable off
dns_nameservers {NAMESERVER}
strip_query_terms off
logformat told {{"source":"%>a","at":"%>la","user":"%un","method":"%rm","target":"%ru","sent":"{_SENT}"}}
access_log stdio:/tmp/access.log told
auth_param basic program /usr/lib/squid/basic_ncsa_auth /tmp/users
auth_param basic credentialsttl 1 second
acl known proxy_auth REQUIRED
acl open localport {OPEN}
acl denied dstdomain {DENIED}
acl CONNECT method CONNECT
acl usual port 443 22 5432 8443
http_access allow open
http_access deny denied
http_access deny to_localhost
http_access deny to_linklocal
http_access deny CONNECT !usual
http_access deny !known
http_access allow all
"""

_START = """
printf '%s' "$CONFIGURATION" >/tmp/squid.conf
printf '%s:%s\\n' "${PASSWORD%%:*}" "$(openssl passwd -apr1 "${PASSWORD#*:}")" >/tmp/users
: >/tmp/access.log
chmod 644 /tmp/users
chown proxy /tmp/access.log
tail -F /tmp/access.log &
exec squid -N -f /tmp/squid.conf
"""

_BROKEN = f"""
import socket, threading
def serve(port, answer):
    server = socket.create_server(("{WEB}", port))
    while True:
        threading.Thread(target=hear, args=(server.accept()[0], answer), daemon=True).start()
def hear(client, answer):
    while client.recv(4096):
        client.sendall(answer)
threading.Thread(target=serve, args=({SILENT}, b""), daemon=True).start()
serve({RUBBISH}, b"SSH-2.0-rubbish\\r\\n\\r\\n")
"""


@dataclass(frozen=True)
class Squid:
    """A running proxy, which can be stopped and started again."""

    docker: APIClient
    engine: PrivateEngine
    container: str

    def requests(self) -> Sequence[Mapping[str, Any]]:
        """Return what has reached it: from and at which address, user, method, target and credentials."""
        lines = self.docker.logs(self.container, stderr=False).splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def stop(self) -> None:
        self.docker.kill(self.container)
        self.docker.wait(self.container)

    def start(self) -> None:
        self.docker.start(self.container)
        until(lambda: self.engine.answers(f"{WEB}:{TLS}"))


@contextmanager
def squid(docker: APIClient, engine: PrivateEngine, image: str) -> Iterator[Squid]:
    """Yield Squid, and the broken proxies beside it. Its image is that of the clients."""
    host = docker.create_host_config(network_mode="host")
    variables = {"CONFIGURATION": _CONFIGURATION, "PASSWORD": PASSWORD}
    proxy = docker.create_container(image, ["sh", "-ec", _START], environment=variables, host_config=host)["Id"]
    broken = docker.create_container(image, ["python3", "-c", _BROKEN], host_config=host)["Id"]
    try:
        made = Squid(docker, engine, proxy)
        docker.start(broken)
        made.start()
        yield made
    finally:
        for container in (proxy, broken):
            docker.remove_container(container, force=True)
