"""Parsing the words after `docker run` without docker."""

import pytest

from clawker_fw.agents.docker_options import RunWords, parse_run
from clawker_fw.errors import RefusedError, UsageError

CREATED = {
    "debian": "-- debian",
    "-it --rm debian bash": "--interactive --tty --rm -- debian bash",
    "--detach debian": "-- debian",
    "--name a -h b -e A=1 -eB=2 -e=C=3 debian": "--name=a --hostname=b --env=A=1 --env=B=2 --env=C=3 -- debian",
    "-itv /srv/work:/work debian": "--interactive --tty --volume=/srv/work:/work -- debian",
    "-- debian --network host": "-- debian --network host",
    "debian --network host --privileged -dv /:/host": "-- debian --network host --privileged -dv /:/host",
    "--entrypoint --privileged debian": "--entrypoint=--privileged -- debian",  # whatever the next word looks like
    "--cgroupns private --network host debian": "--cgroupns=private --network=host -- debian",
}

ATTACHED = {
    "debian": (False, False),
    "-i debian": (False, True),
    "debian -i": (False, False),
    "-dit debian": (True, True),
}

NOT_KNOWN = (
    "--new-in-docker debian",
    "-itx debian",
    "--project other debian",
    "--sig-proxy=false debian",
    "--privileged=false debian",
    "-it --name",
    "-a stdout debian",
    "--detach-keys ctrl-x debian",
)


def parsed(line: str) -> RunWords:
    return parse_run(line.split())


@pytest.mark.parametrize("line", CREATED)
def test_what_docker_create_gets(line: str) -> None:
    """`docker create` gets everything except options that only `docker run` knows."""
    assert parsed(line).create == tuple(CREATED[line].split())


@pytest.mark.parametrize("line", ATTACHED)
def test_what_is_attached(line: str) -> None:
    """Detaching and input are decided as by `docker run`."""
    found = parsed(line)
    assert (found.detached, found.interactive) == ATTACHED[line]


def test_what_else_is_read() -> None:
    """`--rm` and `--cidfile` are read."""
    found = parsed("-t --rm --cidfile first --cidfile=second debian")
    assert (found.removed, found.cid_file) == (True, "second")
    found = parsed("debian --rm")
    assert (found.removed, found.cid_file) == (False, "")


@pytest.mark.parametrize(
    "line", ["--dns-search example.com debian", "--cgroupns host debian", "--cgroupns=host debian"]
)
def test_what_no_engine_records_is_refused(line: str) -> None:
    """Options that the engine does not record are refused: they would look like the firewall's own choice."""
    with pytest.raises(RefusedError) as refused:
        parsed(line)
    assert refused.value.code == "agent-unconfined"


@pytest.mark.parametrize("line", NOT_KNOWN)
def test_what_is_not_known_is_a_mistake(line: str) -> None:
    """Unknown options are refused: only docker knows whether they take the next word."""
    with pytest.raises(UsageError) as refused:
        parsed(line)
    assert refused.value.code == "agent-option"
