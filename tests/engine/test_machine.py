"""Unusual Docker hosts: slow machines, missing kernel features and unusual settings."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from docker import APIClient

from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import RULES, Firewall, remove_project
from devkit.hand import Hand
from devkit.host import client
from devkit.peers import Peers
from devkit.tampering.running import start_a_process
from devkit.tampering.way import COREDNS, ENVOY
from devkit.waiting import until


@pytest.fixture
def sdk(private: PrivateEngine) -> Iterator[APIClient]:
    with closing(client(private.host)) as made:
        yield made


@pytest.fixture
def hand(private: PrivateEngine, sdk: APIClient, tmp_path: Path) -> Iterator[Hand]:
    """A stack on this engine, and a user who tampers with it."""
    firewall, peers = Firewall(private.host, "machine", tmp_path), Peers(sdk)
    firewall.write(*RULES)
    firewall.run()
    yield Hand(sdk, firewall, peers)
    peers.remove_all()
    remove_project(sdk, "machine")


_UNFINISHED = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
with open(sys.argv[1]) as namespace:
    if libc.setns(namespace.fileno(), 0):
        raise OSError(ctypes.get_errno(), "setns")
if not os.fork():  # only a child gets into the namespace
    libc.prctl(1, signal.SIGKILL)  # it ends with its parent (PR_SET_PDEATHSIG)
    libc.prctl(4, 0)  # as runc does, so that nobody inside may look at it (PR_SET_DUMPABLE)
    print(flush=True)
    signal.pause()
sys.stdin.read()
"""


@contextmanager
def unfinished_exec(process: Path) -> Iterator[None]:
    """Hold a process in a namespace that never executes its program, like `docker exec` on a slow machine."""
    command = [sys.executable, "-c", _UNFINISHED, str(process / "ns/pid")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        try:
            if held.stdout is None or not held.stdout.readline():
                raise RuntimeError("no process could be put into the namespace")
            yield
        finally:
            held.communicate()


def test_an_exec_that_takes_long_is_no_tampering(hand: Hand, private: PrivateEngine) -> None:
    """A process that has not executed its program yet is no difference; a program that stays is one."""
    pid = hand.inspect(COREDNS)["State"]["Pid"]
    with unfinished_exec(private.root / "proc" / str(pid)):
        assert hand.firewall.drift().expect().findings == set()
        start_a_process(hand)
        assert hand.firewall.drift().findings == {(COREDNS, "live", "processes", "tamper", "replace")}
    assert hand.firewall.drift().findings == {(COREDNS, "live", "processes", "tamper", "replace")}


def test_an_outdated_neighbour_is_no_packet_filter(hand: Hand) -> None:
    """An outdated MAC address of Envoy in CoreDNS, as after a replacement, is not reported as dropped packets."""
    until(lambda: hand.inspect(ENVOY)["State"]["Health"]["Status"] == "healthy")
    entry = f"{hand.address(ENVOY)} lladdr 02:00:00:00:00:66 nud stale dev eth0"
    hand.inside(COREDNS, f"ip neighbour replace {entry}")
    assert hand.firewall.drift().findings == set()


_REFUSED: tuple[tuple[str, str, int, int, str], ...] = (
    ("socket", "2", 12, 93, "needs nf_tables in the kernel"),  # NETLINK_NETFILTER, EPROTONOSUPPORT
    ("mmap", "0", 7 << 42, 12, "Envoy needs addresses of 48 bits"),  # ENOMEM, as beyond the address space
    ("inotify_init1", "", 0, 24, "`sysctl -w fs.inotify.max_user_instances=128`"),  # EMFILE
)
"""Errors of a kernel that lacks something: system call, argument, its value, error number, message."""


@contextmanager
def _poor(folder: Path, *calls: tuple[str, str, int, int, str]) -> Iterator[PrivateEngine]:
    """Yield an engine whose containers run on a kernel that refuses these calls."""
    refused = [
        {
            "names": [call],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": error,
            "args": [{"index": int(at), "value": value, "op": "SCMP_CMP_EQ"}] if at else [],
        }
        for call, at, value, error, _ in calls
    ]
    profile = folder / "seccomp.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": refused}))
    with private_engine(settings={"seccomp-profile": str(profile)}) as engine:
        yield engine


def test_what_the_kernel_lacks_is_said_before_anything_is_made(
    needs_engine: Callable[..., None], tmp_path: Path
) -> None:
    """All missing features are named before any network or container is created; `doctor` says the same."""
    needs_engine()
    with _poor(tmp_path, *_REFUSED) as engine:
        _lacks(engine, tmp_path, [words for *_, words in _REFUSED])


def test_too_few_watches(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """With inotify instances but too few watches (ENOSPC), the sysctl is named."""
    needs_engine()
    with _poor(tmp_path, ("inotify_add_watch", "", 0, 28, "")) as engine:
        _lacks(engine, tmp_path, ["`sysctl -w fs.inotify.max_user_watches=8192`"])


_BOUND_RUNTIME = """#!/bin/sh
ulimit -n 1024
exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource runc "$@"
"""


def test_too_few_open_files(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """If the engine can't exceed its own limit of open files, as in some containers, the limit is named."""
    needs_engine()
    runtime = tmp_path / "runc"
    runtime.write_text(_BOUND_RUNTIME)
    runtime.chmod(0o755)
    settings = {"runtimes": {"bound": {"path": str(runtime)}}, "default-runtime": "bound"}
    with private_engine(settings=settings) as engine:
        _lacks(engine, tmp_path, ["fs.nr_open", "LimitNOFILE"])


def _lacks(engine: PrivateEngine, folder: Path, named: Sequence[str]) -> None:
    firewall = Firewall(engine.host, "poor", folder)
    firewall.write(*RULES)
    outcome = firewall.call("run")
    assert outcome.code == 4
    assert "error[machine-lacks]" in outcome.err
    with closing(client(engine.host)) as sdk:
        assert sdk.containers(all=True) == []
        assert sdk.networks(names=["poor"]) == []
    doctor = firewall.call("doctor")
    for words in named:
        assert words in outcome.err
        assert words in doctor.out


def test_filtered_frames_are_not_mended_by_a_replacement(
    needs_engine: Callable[..., None], tmp_path: Path
) -> None:
    """If the packet filter drops frames between containers, nothing is replaced, and br_netfilter is named."""
    needs_engine()
    with private_engine(settings={"iptables": False}) as engine, closing(client(engine.host)) as sdk:
        firewall = Firewall(engine.host, "frames", tmp_path)
        firewall.write(*RULES)
        engine.run_in_network(["iptables", "-P", "FORWARD", "DROP"])
        refused = firewall.call("run").expect(5).err
        assert "hint: On that machine, run `sysctl -w net.bridge.bridge-nf-call-iptables=0`" in refused
        assert "log: " not in refused, "what Envoy says at every start is no cause"
        engine.run_in_network(["iptables", "-P", "FORWARD", "ACCEPT"])
        firewall.run()
        before = sdk.inspect_container(firewall.container(ENVOY))["Id"]
        engine.run_in_network(["iptables", "-P", "FORWARD", "DROP"])
        assert firewall.drift().findings == {(ENVOY, "live", "agents_see", "machine", "none")}
        outcome = firewall.call("run").expect(5)
        assert "error[agents-cut-off]" in outcome.err
        assert "br_netfilter" in outcome.err
        assert sdk.inspect_container(firewall.container(ENVOY))["Id"] == before
        assert len(sdk.containers(all=True)) == 2
        engine.run_in_network(["iptables", "-P", "FORWARD", "ACCEPT"])
        until(firewall.current)
