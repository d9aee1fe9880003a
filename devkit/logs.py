"""What containers have written so far, read with one request and little work: tests ask for it again and again.

The Docker SDK asks for a container first, to know the form of its log.
"""

from io import BytesIO

from docker import APIClient

from clawker_fw.engine.outputs import frames


def written(client: APIClient, container: str, *, errors: bool = False, **wanted: str | float) -> list[bytes]:
    """Return the lines that a container without a terminal has written. `wanted` are parameters of the API.

    Raises:
        requests.HTTPError: when the engine doesn't give them.
    """
    asked = {"stdout": 1, "stderr": int(errors), **wanted}
    answer = client.get(f"{client.base_url}/v{client.api_version}/containers/{container}/logs", params=asked)
    answer.raise_for_status()
    return [output or error for output, error in frames(BytesIO(answer.content).read)]
