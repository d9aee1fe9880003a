"""The main job on hosts as people have them. `./dev hosts` tries further ones."""

from collections.abc import Callable

import pytest

from devkit.hosts import HOSTS, Host, try_host


@pytest.mark.parametrize("host_", [each for each in HOSTS if each.tested], ids=lambda host: host.name)
def test_main_job(host_: Host, needs_engine: Callable[..., None]) -> None:
    """Everything works there, from `run` to `down`; without a way out, the program says so."""
    needs_engine(host_.kind)
    try_host(host_)
