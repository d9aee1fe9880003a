"""How the words after `docker run` are told apart, without any docker."""

import pytest

from clawker_fw.agents.docker_options import RunWords, parse_run
from clawker_fw.errors import RefusedError, UsageError

OUTPUTS = frozenset({"stdout", "stderr"})

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
    "debian": OUTPUTS,
    "-a STDERR -i debian": {"stderr", "stdin"},
    "-a stdin debian": {"stdin"},
    "-a stdin -a stdout --attach=stderr debian": OUTPUTS | {"stdin"},
    "-dit debian": frozenset(),
}

NOT_KNOWN = (
    "--new-in-docker debian",
    "-itx debian",
    "--project other debian",
    "--sig-proxy=false debian",
    "--privileged=false debian",
    "-it --name",
    "-d -a stdout debian",
)


def parsed(line: str) -> RunWords:
    """Read a line."""
    return parse_run(line.split())


@pytest.mark.parametrize("line", CREATED)
def test_what_docker_create_gets(line: str) -> None:
    """Everything but what only `docker run` knows, and the rest as it is."""
    assert parsed(line).create == tuple(CREATED[line].split())


@pytest.mark.parametrize("line", ATTACHED)
def test_which_streams_are_attached(line: str) -> None:
    """As `docker run` decides it."""
    assert parsed(line).attached == ATTACHED[line]


def test_what_else_is_read() -> None:
    """Who removes the container, and the file with its id."""
    found = parsed("-t --rm --cidfile first --cidfile=second debian")
    assert (found.removed, found.cid_file) == (True, "second")
    found = parsed("debian --rm")
    assert (found.removed, found.cid_file) == (False, "")


@pytest.mark.parametrize(
    "line", ["--dns-search example.com debian", "--cgroupns host debian", "--cgroupns=host debian"]
)
def test_what_no_engine_records_is_refused(line: str) -> None:
    """Nobody could tell it apart from what the firewall or the engine chose."""
    with pytest.raises(RefusedError) as refused:
        parsed(line)
    assert refused.value.code == "agent-unconfined"


@pytest.mark.parametrize("line", NOT_KNOWN)
def test_what_is_not_known_is_a_mistake(line: str) -> None:
    """Nothing is guessed: an unknown option may take the next word, or not."""
    with pytest.raises(UsageError) as refused:
        parsed(line)
    assert refused.value.code == "agent-option"
