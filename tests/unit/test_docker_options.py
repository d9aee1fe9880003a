"""What of `docker run` an agent may be started with. The parser is pflag's, without any docker."""

from pathlib import Path

import pytest

from clawker_fw.agents.docker_options import Guarded, require_confined
from clawker_fw.errors import RefusedError, UsageError

GUARDED = Guarded.of(
    "unix:///var/tmp/engine/docker.sock",
    [Path("/srv/settings/clawker-fw.yaml")],
    lambda name: name.endswith("allow.test"),
)

PASSED_ON = (
    "-it --rm debian bash",
    "debian",
    "--name agent --hostname a -e A=1 -eB=2 -e=C=3 -v /srv/work:/work:ro -w /work -u 1000:1000 debian",
    "-itv /srv/work:/work debian",
    "-itv=/srv/work:/work debian",
    "-v work:/var/run/docker.sock debian",
    "-v /var/run/docker.sock debian",  # a volume without a name, at this path in the container
    "--mount type=bind,source=/opt,target=/var/run/docker.sock debian",
    "--mount type=volume,src=work,dst=/work debian",
    "-v /srv/settings:/s:ro -v /srv/settings/other:/o --mount type=bind,src=/srv,dst=/s,readonly debian",
    "--cap-drop ALL --cap-add SYS_PTRACE --cap-add=cap_chown debian",
    "--security-opt no-new-privileges --ipc private --pid= --sysctl kernel.shm_rmid_forced=1 debian",
    "--privileged=false --use-api-socket=0 --publish-all=false --expose 80 -i=false debian",
    "--name other.test --network-alias db --log-driver syslog --log-opt max-size=1m --log-driver=local debian",
    "--log-opt syslog-address=unix:///dev/log --volume-driver local debian",
    "-l role=agent --label com.example=dev.clawker. --label-file /nowhere debian",
    "--memory 1g --cpus=2 --gpus all --tmpfs /tmp --add-host a:192.0.2.1 debian",
    "-- debian --network host",
    "debian --network host --privileged -v /:/host",
    "--rm debian -p --pid host",
    "--entrypoint --privileged debian",  # the next word is the value, whatever it looks like
)

REFUSED = (
    "--network host debian",
    "--network=bridge debian",
    "--net host debian",
    "-it --net=none debian",
    "--name --rm --network host debian",
    "--dns 192.0.2.1 debian",
    "--dns-search example.com debian",
    "--ip 10.213.1.53 debian",
    "--mac-address 02:42:0a:d5:08:0a debian",
    "--privileged debian",
    "--privileged=true debian",
    "--privileged=1 debian",
    "--use-api-socket debian",
    *(
        f"--cap-add {name} debian"
        for name in ("NET_ADMIN", "net_raw", "CAP_NET_RAW", "ALL", "SYS_ADMIN", "SYS_MODULE")
    ),
    "--cap-add=BPF debian",
    "--pid host debian",
    "--pid=container:clawker-envoy debian",
    *(f"--{name} host debian" for name in ("ipc", "uts", "userns", "cgroupns")),
    "--device /dev/sda debian",
    "-l dev.clawker.managed=true debian",
    *(f"--{option} www.allow.test debian" for option in ("name", "hostname", "net-alias", "network-alias")),
    "-h allow.test debian",
    "--log-driver gelf debian",
    "--log-driver=fluentd debian",
    "--log-driver syslog --log-opt syslog-address=udp://192.0.2.1:514 debian",
    "--volume-driver sshfs debian",
    "--mount type=volume,src=a,dst=/a,volume-driver=sshfs debian",
    "--mount type=volume,dst=/a,volume-opt=type=nfs,volume-opt=o=addr=192.0.2.1 debian",
    "--label dev.clawker.firewall.sibling=envoy debian",
    "--volumes-from clawker-envoy debian",
    "--sysctl net.ipv6.conf.all.disable_ipv6=0 debian",
    "--security-opt systempaths=unconfined debian",
    "--security-opt seccomp=unconfined debian",
    "-v /var/run/docker.sock:/var/run/docker.sock debian",
    "-v/run/docker.sock:/s debian",
    "-itv /:/host debian",
    "-tv=/var/run:/r debian",
    "--volume=/srv/../run//docker.sock:/s debian",
    "-v /var/tmp/engine:/e debian",
    "-v /var/lib/docker/volumes:/v debian",
    "-v /var/run/docker.sock:/s:ro debian",
    "-v /srv/settings:/s debian",
    "-v /srv:/s:rw,z debian",
    "-v /srv/settings/clawker-fw.yaml:/s debian",
    "--mount type=bind,src=/srv,dst=/s,readonly=false debian",
    "--mount type=bind,source=/var/run/docker.sock,target=/s debian",
    "--mount=type=bind,target=/s,SRC=/run debian",
    '--mount type=bind,"source=/run",target=/s debian',
    "--mount type=volume,target=/s,volume-opt=type=none,volume-opt=device=/run,volume-opt=o=bind debian",
)

PUBLISHED = (
    "-p 8080:80 debian",
    "-p8080:80 debian",
    "-itp=8080:80 debian",
    "--publish 80 debian",
    "--publish=127.0.0.1:8080:80/tcp debian",
    "-P debian",
    "-dP debian",
    "--publish-all debian",
    "--publish-all=true debian",
)

NOT_KNOWN = (
    "--new-in-docker debian",
    "-x debian",
    "-itx debian",
    "--project other debian",
    "--networks host debian",
)


@pytest.mark.parametrize("line", PASSED_ON)
def test_what_leaves_an_agent_confined_is_passed_on(line: str) -> None:
    """Ordinary options, and whatever follows the image."""
    require_confined(line.split(), GUARDED)


@pytest.mark.parametrize("line", REFUSED)
def test_what_opens_a_way_around_is_refused(line: str) -> None:
    """Other networks, privileges, namespaces, devices, and the engine's socket, in every spelling of pflag."""
    with pytest.raises(RefusedError) as refused:
        require_confined(line.split(), GUARDED)
    assert refused.value.code == "agent-unconfined"


@pytest.mark.parametrize("line", PUBLISHED)
def test_what_publishes_a_port_is_refused(line: str) -> None:
    """Docker would accept it, and nobody would reach the agent at this port."""
    with pytest.raises(RefusedError) as refused:
        require_confined(line.split(), GUARDED)
    assert refused.value.code == "agent-unreachable"


@pytest.mark.parametrize("line", NOT_KNOWN)
def test_what_is_not_known_is_a_mistake(line: str) -> None:
    """Nothing is guessed: an unknown option may take the next word, or not."""
    with pytest.raises(UsageError) as refused:
        require_confined(line.split(), GUARDED)
    assert refused.value.code == "agent-option"


def test_a_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount is judged by where it leads on this machine, also when it is relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/var/run")
    (tmp_path / "code").mkdir()
    require_confined(["-v", "./code:/code", "debian"], GUARDED)
    for source in (f"{tmp_path}/link", "./link", f"{tmp_path}/code/../link"):
        with pytest.raises(RefusedError):
            require_confined(["-v", f"{source}:/x", "debian"], GUARDED)


def test_paths_of_a_remote_engine_are_not_those_of_this_machine() -> None:
    """There, a folder of that name has no settings; the sockets are where they always are."""
    remote = Guarded.of("ssh://gate", [Path("/srv/settings/clawker-fw.yaml")])
    require_confined(["-v", "/srv/settings:/s", "debian"], remote)
    with pytest.raises(RefusedError):
        require_confined(["-v", "/var/run/docker.sock:/s", "debian"], remote)


def test_an_option_without_its_value_ends_the_line() -> None:
    """Docker itself reports what is missing."""
    require_confined(["-it", "--name"], GUARDED)


def test_labels_of_ours_in_a_file_are_refused(tmp_path: Path) -> None:
    """A file with labels may have none of ours; others are passed on."""
    file = tmp_path / "labels"
    file.write_text("role=agent\n")
    require_confined(["--label-file", str(file), "debian"], GUARDED)
    file.write_text("role=agent\n  dev.clawker.purpose=firewall\n")
    with pytest.raises(RefusedError) as refused:
        require_confined(["--label-file", str(file), "debian"], GUARDED)
    assert refused.value.code == "agent-unconfined"
