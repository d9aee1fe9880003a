"""Prints the packets at the ports of bridges as JSON until SIGTERM: `python -m devkit.sniffing BRIDGE…`.

The last line says how many were dropped. Whoever looks for something in what was dropped does not find it.
"""

import base64
import json
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress

_EVERY_PROTOCOL, _SOL_PACKET, _STATISTICS, _RECEIVE_BUFFER_FORCED = 3, 263, 6, 33
"""Numbers in linux/if_ether.h, linux/socket.h, linux/if_packet.h and asm-generic/socket.h."""

_BUFFER, _LARGEST = 64 << 20, 128 << 10
"""The latter is more than any interface passes on at once, however many segments it has joined."""


def _bridges() -> dict[str, str]:
    listed = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True).stdout
    return {each["ifname"]: each.get("master", each["ifname"]) for each in json.loads(listed)}


def main() -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL)) as sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCED, _BUFFER)
        sniffer.settimeout(0.1)
        print(json.dumps({"event": "ready"}), flush=True)
        bridges: dict[str, str] = {}
        while not ended:
            with suppress(TimeoutError):
                packet, (interface, *_) = sniffer.recvfrom(_LARGEST)
                if interface not in bridges:
                    bridges = {interface: interface, **_bridges()}
                if bridges[interface] in sys.argv[1:]:
                    found = {"bridge": bridges[interface], "interface": interface}
                    print(json.dumps({**found, "data": base64.b64encode(packet).decode()}))
        _, dropped = struct.unpack("II", sniffer.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    print(json.dumps({"dropped": dropped}))


if __name__ == "__main__":
    main()
