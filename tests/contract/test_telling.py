"""Reports of an engine about containers: last output, logs, restarts and events, and its clock."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import NotFoundError
from clawker_fw.fwctl import Helper
from clawker_fw.model.containers import ContainerView
from clawker_fw.model.desired import Desired
from clawker_fw.model.engines import Event
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.plan import creation
from clawker_fw.stack.files import public
from devkit.waiting import until
from tests.contract.conftest import answering, created, view


def test_a_log_is_read_from_its_end(engine: EngineWriter, stack: Desired) -> None:
    """A log can be read whole or from its end, with times; a container without boot files logs its error."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    helper = {path: text for path, text in wanted.files.items() if path.startswith("bin/")}
    shape = replace(wanted.shape, restart="no")
    container = engine.create_container(replace(wanted, shape=shape, files=helper))

    def lines(count: int | None, *, follow: bool = False) -> list[bytes]:
        with engine.log(container, count, follow=follow) as log:
            return [line for some in log for line in some]

    assert lines(None) == []
    engine.start(container)
    until(lambda: view(engine, wanted.name).status == "exited")
    assert view(engine, wanted.name).exit_code != 0
    assert any("boot/sibling.json" in line for line in engine.last_words(container, 5))
    whole = lines(None)
    assert whole
    assert lines(len(whole) + 5, follow=True) == whole
    assert lines(1) == whole[-1:]
    assert lines(0) == []
    time = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    assert all(re.fullmatch(time + rb"( .*\n)?", line) for line in whole)
    engine.remove(container)
    with pytest.raises(NotFoundError), engine.log(container, 1):
        pass


def test_a_program_that_ends_again_and_again_is_counted(engine: EngineWriter, stack: Desired) -> None:
    """The engine counts its restarts of a container, and a start by hand resets the count."""
    wanted = creation(stack.siblings[Sibling.COREDNS], f"{stack.project}-coredns")
    helper = {path: text for path, text in wanted.files.items() if path.startswith("bin/")}
    container = engine.create_container(replace(wanted, files=helper))
    assert view(engine, wanted.name).restarts == 0
    engine.start(container)

    def waiting() -> ContainerView | None:
        found = view(engine, wanted.name)
        return found if found.status == "restarting" else None

    found = until(waiting)
    assert found.restarts > 0
    assert found.exit_code == 1
    engine.stop(container)
    engine.put_files(container, wanted.files)
    engine.start(container)
    answering(engine, container)
    assert view(engine, wanted.name).restarts == 0
    engine.remove(container)


@contextmanager
def following(engine: EngineWriter) -> Iterator[list[Event]]:
    """Collect an engine's events until the context ends."""
    found: list[Event] = []
    with engine.events() as events:

        def follow() -> None:
            for event in events:
                found.append(event)  # noqa: PERF402 - one by one, as they come

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        yield found
    thread.join(10)
    assert not thread.is_alive()


def happened(events: list[Event], container: str) -> list[str]:
    """Return the events of a container, including its networks' events."""
    return [each.action for each in events if each.container == container]


def test_events_tell_what_happens(engine: EngineWriter, stack: Desired) -> None:
    """Every change of a container causes events in order, with its name and its networks."""
    name = f"{stack.project}-coredns"
    with following(engine) as events:
        container = created(engine, stack, Sibling.COREDNS)
        engine.start(container)
        answering(engine, container)
        engine.put_files(container, {"extra": public(b"x")})
        Helper(engine, container).release()
        engine.rename(container, f"{name}-next")
        engine.disconnect(f"{stack.project}-net", container)
        engine.remove(container)
        until(lambda: "destroy" in happened(events, container))
    wanted = [
        "create",
        "connect",
        "start",
        "extract-to-dir",
        "exec_start",
        "exec_die",
        "rename",
        "disconnect",
        "die",
        "destroy",
    ]
    actions = iter(happened(events, container))
    assert [action for action in wanted if action in actions] == wanted
    about = [each for each in events if each.container == container]
    assert {each.names[0] for each in about if each.kind == "network"} >= {f"{stack.project}-net"}
    (renamed,) = (each for each in about if each.action == "rename")
    assert renamed.names == (f"{name}-next", name)
    (release,) = (each for each in about if each.words == "/fw/bin/fwctl release")
    assert release.run
    assert [each.action for each in about if each.run == release.run] == ["exec_start", "exec_die"]


def test_looking_is_told_as_commands_and_nothing_else(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """Reading causes no events except for commands in containers, so that a watcher does not wake itself."""
    with following(engine) as events:
        observe(engine, stack.project)
        Helper(engine, running[Sibling.COREDNS]).release()
        until(lambda: any(each.words == "/fw/bin/fwctl release" for each in events))
    ours = [each for each in events if each.container in running.values()]
    commands = {
        (each.action, " ".join(each.words.split(" ")[:2]))
        for each in ours
        if each.action not in {"health_status", "exec_die"}
    }
    expected = {"/fw/bin/fwctl probe", "/fw/bin/fwctl health", "/fw/bin/fwctl release"}
    assert commands <= {("exec_start", words) for words in expected}
    assert ("exec_start", "/fw/bin/fwctl probe") in commands
