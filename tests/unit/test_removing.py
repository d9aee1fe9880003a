"""Errors about a container that the engine is removing."""

from typing import Any

import pytest
from docker import errors

from clawker_fw.engine.docker import DockerEngine
from clawker_fw.errors import EngineError, NotFoundError
from clawker_fw.model.engines import EngineFacts

ANSWER = "RWLayer of container 1ace is unexpectedly nil"
DEAD = "can not get logs from container which is dead or marked for removal"


class Client:
    """An engine that can't read a container's files or log."""

    def __init__(self, status: str | None) -> None:
        self._status = status

    def get_archive(self, *_: object, **__: object) -> None:
        """Fail like an engine that has already unmounted the files."""
        raise errors.APIError("500 Server Error", explanation=ANSWER)

    def open_response(self, *_: object, **__: object) -> None:
        """Fail like an engine that no longer opens the log."""
        raise errors.APIError("409 Client Error", explanation=DEAD)

    def inspect_container(self, container: str) -> dict[str, Any]:
        if self._status is None:
            raise errors.NotFound("404 Client Error")
        return {
            "Id": container,
            "Name": "/it",
            "Image": "sha256:0",
            "Created": "",
            "State": {"Status": self._status},
            "Config": {},
            "HostConfig": {},
        }


def _engine(status: str | None) -> DockerEngine:
    client: Any = Client(status)
    return DockerEngine(client, EngineFacts("20.10.24", "1.41", "amd64"), (0, 0))


@pytest.mark.parametrize("status", [None, "removing", "dead"])
def test_a_container_that_is_being_removed(status: str | None) -> None:
    """It counts as removed, whatever the engine's error, so a log reader continues with the next container."""
    for follow in (False, True):
        with pytest.raises(NotFoundError) as caught, _engine(status).log("1ace", 0, follow=follow):
            pass
        assert caught.value.context == (DEAD,)
    with pytest.raises(NotFoundError) as caught:
        _engine(status).files("1ace")
    assert caught.value.context == (ANSWER,)


@pytest.mark.parametrize("status", ["running", "exited"])
def test_files_that_can_t_be_read(status: str) -> None:
    """If the container stays, the error is raised."""
    with pytest.raises(EngineError, match="could not read the files") as caught:
        _engine(status).files("1ace")
    assert not isinstance(caught.value, NotFoundError)
