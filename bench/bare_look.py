"""The calls of `clawker-fw drift` on a current stack, by the SDK and one after the other: the floor for a look."""

import sys

import docker


def look(host: str, project: str, references: list[str]) -> None:
    """Ask the engine everything that a look asks."""
    client = docker.APIClient(base_url=host, version="auto", timeout=60)
    client.version()
    networks = client.networks()
    names = [f"{project}-{sibling}{which}" for sibling in ("envoy", "coredns") for which in ("", "-next")]
    for reference in references:
        client.inspect_image(reference)  # type: ignore[no-untyped-call]
    for listed in client.containers(all=True, filters={"name": names}):
        container = client.inspect_container(listed["Id"])
        identity = client.exec_create(container["Id"], ["/fw/bin/fwctl", "probe"])["Id"]
        b"".join(answer or b"" for answer, _ in client.exec_start(identity, stream=True, demux=True))
        client.exec_inspect(identity)
        b"".join(client.get_archive(container["Id"], "/fw")[0])
        client.inspect_image(container["Image"])  # type: ignore[no-untyped-call]
    for network in networks:
        if network["Name"] in {f"{project}-net", f"{project}-egress"}:
            client.inspect_network(network["Id"])


if __name__ == "__main__":
    look(sys.argv[1], sys.argv[2], sys.argv[3:])
