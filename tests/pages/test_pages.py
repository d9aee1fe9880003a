"""Every page of the documentation in a headless Chromium, as wide as a screen and as narrow as a phone."""

from pathlib import Path

import pytest

from devkit import pages
from devkit.engines import EngineError


@pytest.fixture(scope="module")
def browser(require_engine: bool) -> None:  # noqa: FBT001 - a fixture
    """A browser: without one, these tests are skipped, or fail with `--require-engine`."""
    try:
        pages.install_browser()
    except EngineError as error:
        if require_engine:
            raise
        pytest.skip(f"NO PAGE IS TESTED: {error}")


@pytest.mark.usefixtures("browser")
def test_every_page_can_be_read(tmp_path: Path) -> None:
    """No page scrolls sideways or cuts off code, every link leads somewhere, and every picture has words.

    On a phone, every cell of a table is visible without scrolling, under the heading of its column.
    """
    pages.build(tmp_path)
    assert pages.problems(tmp_path) == []


@pytest.mark.usefixtures("browser")
def test_what_can_t_be_read_is_found(tmp_path: Path) -> None:
    """A page with all of these mistakes is reported for each."""
    (tmp_path / "bad.html").write_text(
        '<!doctype html><body><article><div style="width:2000px">wide</div><pre style="overflow:auto;width:50px">'
        'a very long line of code</pre><img src="none.png">'
        '<div style="overflow:auto"><table><thead><tr><th>what<th>why</thead><tbody><tr><td>a thing</td>'
        '<td style="min-width:500px">why so</td></tr></tbody></table></div>'
        '<a href="gone.html">x</a><a href="#nowhere">y</a></article>'
    )
    found = pages.problems(tmp_path)
    for words in (
        "at 400 px scrolls sideways",
        "at 1300 px scrolls sideways",
        "cuts off code",
        "hides a cell: why so",
        "does not say what a cell is: a thing",
        "without words",
        "broken picture",
        "gone.html, which",
        "#nowhere, which",
    ):
        assert any(words in each for each in found), (words, found)
