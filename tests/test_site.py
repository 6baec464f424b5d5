"""The site builds without a warning, its links lead somewhere, and a phone shows it as it is."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parent.parent
PHONE = 390
"""Width of a usual phone in CSS pixels."""

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """Collects where a page links to, and what in it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def test_links(site: Path):
    """Links within the site lead to a page and a place in it; others are https and well formed."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    dead: list[str] = []
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme:
                if link.startswith("data:") or re.fullmatch(r"https://[\w.-]+\.\w+(/\S*)?", link):
                    continue
                dead.append(f"{path.relative_to(site)}: {link}")
                continue
            place, anchor = urldefrag(link)
            target = (path.parent / unquote(place.partition("?")[0])).resolve() if place else path
            known = pages.get(target)
            if not target.exists() or (known and unquote(anchor) not in known.anchors):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


def test_every_page_is_reached(site: Path):
    start = Page(site / "index.html")
    reached = {(site / urldefrag(link)[0]).resolve() for link in start.links}
    made = {site / f"{name}.html" for name in ("index", "genindex", "py-modindex", "search")}
    assert set(site.rglob("*.html")) - made - reached == set()


def test_the_reference_shows_what_is_public(site: Path):
    page = Page(site / "reference" / "api.html")
    shown = {name.removeprefix("wool.") for name in page.anchors if name.startswith("wool.")}
    for name, members in {
        "WorkerPool": "broadcast calls tree use wait workers",
        "Credentials": "tls token",
    }.items():
        found = sorted(one for one in shown if one.startswith(f"{name}."))
        assert found == [f"{name}.{member}" for member in members.split()]


WRAPPER = """<!doctype html><body><script>
const found = {};
async function measure(page) {
    const frame = document.createElement("iframe");
    frame.style = "border: 0; width: WIDTHpx; height: 800px";
    const loaded = new Promise(resolve => frame.onload = resolve);
    frame.src = page;
    document.body.append(frame);
    await loaded;
    const root = frame.contentDocument.documentElement;
    if (root.clientWidth !== WIDTH) throw new Error(page + " is " + root.clientWidth + " wide");
    found[page] = root.scrollWidth;
    frame.remove();
}
(async () => {
    for (const page of PAGES) await measure(page);
    document.body.textContent = "RESULT " + JSON.stringify(found) + " END";
})().catch(error => document.body.textContent = "ERROR " + error);
</script>"""


@pytest.fixture
def server(site: Path) -> Iterator[str]:
    pages = [str(path.relative_to(site)) for path in sorted(site.rglob("*.html"))]
    wrapper = WRAPPER.replace("WIDTH", str(PHONE)).replace("PAGES", json.dumps(pages))
    (site / "wrapper.html").write_text(wrapper)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/wrapper.html"
        server.shutdown()
        thread.join()


def test_a_phone_shows_every_page(server: str, tmp_path: Path):
    """No page is wider than the screen; what is wide, code and tables, scrolls by itself."""
    if CHROMIUM is None:
        assert not os.environ.get("REQUIRE_TOOLS"), "chromium is not installed"
        pytest.skip("chromium is not installed")
    done = subprocess.run(
        [
            CHROMIUM,
            *QUIET,
            f"--user-data-dir={tmp_path}",
            "--timeout=145000",
            "--virtual-time-budget=40000",
            "--dump-dom",
            server,
        ],
        capture_output=True,
        text=True,
        timeout=155,
    )
    result = re.search("RESULT (.*) END", done.stdout)
    assert result is not None, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, int] = json.loads(result[1])
    assert len(found) > 10
    assert {page: width for page, width in found.items() if width > PHONE} == {}
