"""Builds the site, checks its links and opens every page in a browser. `make docs`.

Writes build/docs/html and build/docs/screenshots. Warnings are errors. DOCS_ONLINE=1 also checks links to other sites.
The last step requires Chromium. DOCS_BROWSER decides what happens if Chromium is missing: by default the step is
skipped with a message, "required" makes that an error, and "install" installs Chromium with apt-get.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "docs"
HTML, SCREENSHOTS = OUT / "html", OUT / "screenshots"
HEIGHT = "document.documentElement.scrollHeight"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def sphinx(builder: str, out: Path, *options: str) -> None:
    """Runs a Sphinx builder. Pages that are unchanged since an earlier run give no warnings."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", builder, "-d", OUT / "doctrees"]
    subprocess.run([*map(str, command), *options, str(ROOT / "docs"), str(out)], check=True)


def find_browser() -> str | None:
    """Returns the path of Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def install_browser() -> None:
    """Installs Chromium with apt-get."""
    root = [] if os.geteuid() == 0 else ["sudo"]
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        subprocess.run([*root, "apt-get", *command], stdout=subprocess.DEVNULL, check=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder, for this machine only, and yields the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:  # otherwise the thread keeps the process alive
            server.shutdown()
            thread.join()


def look(browser: str) -> list[str]:
    """Opens every page in Chromium and takes a screenshot of its top. Returns the errors of the pages."""
    from playwright.sync_api import Error, sync_playwright

    problems: list[str] = []
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    with sync_playwright() as playwright, served(HTML) as address:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium does not start with a sandbox as root
        pages = sorted(HTML.rglob("*.html"))
        chromium = playwright.chromium.launch(executable_path=browser, args=sandbox)
        for file in pages:
            name = file.relative_to(HTML).with_suffix("")
            page = chromium.new_page(viewport={"width": 1500, "height": 900})
            report = functools.partial(lambda name, kind, text: problems.append(f"{name}: {kind}: {text}"), name)
            page.on("console", lambda m, report=report: m.type == "error" and report("console", m.text))
            page.on("pageerror", lambda error, report=report: report("script", error))
            page.on("requestfailed", lambda r, report=report: report("not loaded", r.url))
            page.on("response", lambda r, report=report: r.ok or r.status == 304 or report(r.status, r.url))
            page.goto(f"{address}/{name}.html", wait_until="load")
            top = {"x": 0, "y": 0, "width": 1500, "height": min(page.evaluate(HEIGHT), 15_000)}
            try:
                page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, clip=top)
            except Error as error:  # on a machine under load, a page may load but not be drawn
                print(f"docs: {name}: no screenshot: {error.message.splitlines()[0]}")
            page.close()
        print(f"docs: {len(pages)} pages opened in Chromium {chromium.version}")
        chromium.close()
    return problems


def main() -> int:
    shutil.rmtree(HTML, ignore_errors=True)  # removes pages that no longer exist
    sphinx("html", HTML, "--fresh-env")
    sphinx("linkcheck", OUT / "links")
    print(f"docs: built without a warning, links checked: {HTML / 'index.html'}")
    wish = os.environ.get("DOCS_BROWSER", "")
    if wish == "install" and find_browser() is None:
        install_browser()
    browser = find_browser()
    if browser is None:
        print(f"docs: pages were NOT opened in a browser: none of {', '.join(BROWSERS)} is on PATH")
        return int(wish in ("install", "required"))
    problems = look(browser)
    for problem in problems:
        print(f"docs: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
