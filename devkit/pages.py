"""The documentation in a real browser: which pages scroll sideways, hide something, or have wordless pictures.

A page of ours opens every other page in a frame of each width, measures it, and sends what it found to the server
that it came from. So nothing but a headless Chromium is needed, and nobody drives it.
"""

import functools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from devkit.engines import install

BROWSER = "chromium-headless-shell"
WIDTHS = (1300, 400)
_WITHIN = 180.0

_MEASURE = """<!doctype html><meta charset="utf-8"><body><script>
const open = (path, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.onload = () => setTimeout(() => done(frame), 50);
  frame.src = path;
  document.body.append(frame);
});
const beginning = each => each.textContent.trim().slice(0, 60);
const hidden = (table, width) => {
  const found = [], headings = [...table.querySelectorAll("thead th")].map(each => each.textContent.trim());
  for (const row of table.querySelectorAll("tbody tr")) [...row.cells].forEach((cell, column) => {
    const {left, right, height} = cell.getBoundingClientRect(), text = cell.textContent.trim();
    const cut = left < -1 || right > width + 1 || cell.scrollWidth > cell.clientWidth + 1;
    const unnamed = headings[column] && !cell.innerText.trim().startsWith(headings[column]);
    if (cut || (text && !height)) found.push(`hides a cell: ${beginning(cell)}`);
    if (unnamed) found.push(`does not say what a cell is: ${beginning(cell)}`);
  });
  return found;
};
const measured = (page, path, width) => {
  const found = [], root = page.documentElement;
  if (root.scrollWidth > root.clientWidth + 1) {
    const wide = [...page.body.querySelectorAll("*")].filter(each => each.getBoundingClientRect().right > width + 1
      && !each.closest("pre, .table-wrapper, .toc-drawer, .sidebar-drawer"));
    found.push(`scrolls sideways: ${wide.slice(-1).map(each => each.outerHTML.slice(0, 80))}`);
  }
  if (width >= 1300) {
    for (const block of page.querySelectorAll("article pre")) {
      const cut = block.scrollWidth > block.clientWidth + 1;
      if (cut) found.push(`cuts off code: ${beginning(block)}`);
    }
  }
  if (width < 500) {
    for (const table of page.querySelectorAll("article table")) found.push(...hidden(table, width));
  }
  for (const picture of page.images) {
    if (!picture.alt.trim()) found.push(`has a picture without words: ${picture.src}`);
    if (picture.complete && !picture.naturalWidth) found.push(`has a broken picture: ${picture.src}`);
  }
  return found.map(what => `${path} at ${width} px ${what}`);
};
const links = page => [...page.querySelectorAll("article a[href]")].map(each => each.href)
  .filter(each => each.startsWith(location.origin));
(async () => {
  const problems = [], linked = {};
  for (const path of PAGES) for (const width of WIDTHS) {
    const frame = await open(path, width);
    problems.push(...measured(frame.contentDocument, path, width));
    for (const each of links(frame.contentDocument)) linked[each] ??= path;
    frame.remove();
  }
  const known = {};
  for (const [link, path] of Object.entries(linked)) {
    const [place, anchor] = link.split("#");
    known[place] ??= await fetch(place).then(async answer => answer.ok
      ? new DOMParser().parseFromString(await answer.text(), "text/html") : null);
    if (!known[place] || (anchor && !known[place].getElementById(decodeURIComponent(anchor)))) {
      problems.push(`${path} links to ${link}, which is not there`);
    }
  }
  await fetch("/found", {method: "POST", body: JSON.stringify(problems)});
})();
</script></body>
"""


def install_browser() -> None:
    """Install Debian's headless Chromium, unless it is installed.

    Raises:
        devkit.engines.EngineError: when it can't be installed.
    """
    install({BROWSER: BROWSER})


def build(folder: Path) -> None:
    """Build the documentation into a folder, with warnings as errors."""
    docs = Path(__file__).resolve().parent.parent / "docs"
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(docs), str(folder)]
    subprocess.run(command, check=True)


def problems(site: Path) -> list[str]:
    """Return what is wrong with the pages of a built site, each with the page and the width."""
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if not path.name.startswith("_"))
    found: queue.Queue[list[str]] = queue.Queue()
    with _served(site, pages, found) as address, tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--window-size=1400,1000",
        ]
        # Chromium ends at once if it is to print something, so it has to keep a port that nobody uses.
        browser = subprocess.Popen(
            [BROWSER, *options, "--remote-debugging-port=0", f"{address}/measure"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return found.get(timeout=_WITHIN)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)  # what is started is a script, which starts the browser
            browser.wait()


@contextmanager
def _served(site: Path, pages: Sequence[str], found: "queue.Queue[list[str]]") -> Iterator[str]:
    """Serve a site and the page that measures it, and put what that finds into a queue."""
    measure = _MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS)).encode()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/measure":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(measure)))
            self.end_headers()
            self.wfile.write(measure)

        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


if __name__ == "__main__":
    install_browser()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        told = problems(Path(folder))
    print("\n".join(told))
    sys.exit(bool(told))
