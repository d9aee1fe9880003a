"""The engine calls of `clawker-fw drift` on a current stack, made one by one with the SDK: its lower bound."""

import sys

import docker


def look(host: str, project: str, references: list[str]) -> None:
    client = docker.APIClient(base_url=host, version="auto", timeout=60)
    client.info()
    client.info()  # a machine may have changed since the connection was made
    client.networks()
    for image in client.images(filters={"label": ["dev.clawker.managed=true", "dev.clawker.purpose=firewall"]}):
        client.inspect_image(image["Id"])  # type: ignore[no-untyped-call]
    ours = [f"dev.clawker.{key}" for key in ("managed=true", "purpose=firewall", f"project={project}")]
    client.volumes(filters={"label": ours, "dangling": True})
    for reference in references:
        client.inspect_image(reference)  # type: ignore[no-untyped-call]
    names = {f"/{project}-{sibling}" for sibling in ("envoy", "coredns")}
    listing = client.containers(all=True)
    for listed in listing:  # a list does not show the form of a container, by which it is ours or not
        if listed["Labels"].get("dev.clawker.project"):
            client.inspect_container(listed["Id"])
    for listed in listing:
        if names.isdisjoint(listed["Names"]):
            continue
        container = client.inspect_container(listed["Id"])
        identity = client.exec_create(container["Id"], ["/fw/bin/fwctl", "probe"])["Id"]
        b"".join(answer or b"" for answer, _ in client.exec_start(identity, stream=True, demux=True))
        client.exec_inspect(identity)
        b"".join(client.get_archive(container["Id"], "/fw")[0])
        client.inspect_image(container["Image"])  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    look(sys.argv[1], sys.argv[2], sys.argv[3:])
