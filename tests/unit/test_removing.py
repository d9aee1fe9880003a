"""An engine's errors about a container that it is just removing."""

from typing import Any

import pytest
from docker import errors

from clawker_fw.engine import direct
from clawker_fw.engine.docker import DockerEngine
from clawker_fw.engine.local import AnswerError
from clawker_fw.engine.locate import EngineLocation
from clawker_fw.errors import EngineError, NotFoundError
from clawker_fw.model import EngineFacts

ANSWER = "RWLayer of container 1ace is unexpectedly nil"


class Client:
    """An engine that can't read a container's files: what asks it, as far as it is asked."""

    def __init__(self, status: str | None, *, sdk: bool) -> None:
        """`status` is that of the container, or None if it is gone. `sdk` chooses whose errors are raised."""
        self._status = status
        self._sdk = sdk

    def get_archive(self, *_: object, **__: object) -> None:
        """Fail like a daemon that has already unmounted the files."""
        raise errors.APIError("500 Server Error", explanation=ANSWER) if self._sdk else AnswerError(500, ANSWER)

    def inspect_container(self, container: str) -> dict[str, Any]:
        """Return the container's state."""
        if self._status is None:
            raise errors.NotFound("404 Client Error") if self._sdk else AnswerError(404, "No such container")
        return {
            "Id": container,
            "Name": "/it",
            "Image": "sha256:0",
            "Created": "",
            "State": {"Status": self._status},
            "Config": {},
            "HostConfig": {},
        }


DEAD = "can not get logs from container which is dead or marked for removal"


def _engine(status: str | None, *, sdk: bool) -> DockerEngine:
    client: Any = Client(status, sdk=sdk)
    place = EngineLocation("unix:///nowhere", "a test")
    return DockerEngine(client, EngineFacts("20.10.24", "1.41", "amd64"), place, (0, 0))


def _read(status: str | None, *, sdk: bool) -> None:
    _engine(status, sdk=sdk).files("1ace")


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("status", [None, "removing", "dead"])
def test_the_log_of_a_container_that_is_being_removed(
    monkeypatch: pytest.MonkeyPatch,
    status: str | None,
    follow: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The container counts as removed when its log can no longer be opened: a reader goes on with the next one."""

    def opened(*_: object, **__: object) -> None:
        raise errors.APIError("409 Client Error", explanation=DEAD)

    monkeypatch.setattr(direct, "opened", opened)
    with pytest.raises(NotFoundError) as caught, _engine(status, sdk=True).log("1ace", 0, follow=follow):
        pass
    assert caught.value.context == (DEAD,)


@pytest.mark.parametrize("sdk", [False, True])
@pytest.mark.parametrize("status", [None, "removing", "dead"])
def test_files_of_a_container_that_is_being_removed(status: str | None, sdk: bool) -> None:  # noqa: FBT001 - a parameter
    """It counts as removed, whatever the engine's error was."""
    with pytest.raises(NotFoundError) as caught:
        _read(status, sdk=sdk)
    assert caught.value.context == (ANSWER,)


@pytest.mark.parametrize("sdk", [False, True])
@pytest.mark.parametrize("status", ["running", "exited"])
def test_files_that_can_t_be_read(status: str, sdk: bool) -> None:  # noqa: FBT001 - a parameter
    """The error of a container that stays is an error."""
    with pytest.raises(EngineError, match="could not read the files") as caught:
        _read(status, sdk=sdk)
    assert not isinstance(caught.value, NotFoundError)
