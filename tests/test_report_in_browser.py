"""The report in a real browser: everything is there without scripts and without a network, on screen and on paper."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report_of_pruning import imported, sensitivity
from test_reports import ATTACK, evidence, family, full, gate, variant

from pruneproof.evidence import Evidence
from pruneproof.reports import html
from pruneproof.verdicts import Verdict

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1280,900",
    "--remote-debugging-pipe",
)
LAUNCH = (
    "import fcntl, os, sys\n"
    "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]\n"
    "os.dup2(ends[0], 3), os.dup2(ends[1], 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)
"""Puts the two pipes where the browser expects them: it reads commands from 3 and writes answers to 4."""
PATIENCE_S = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH to open the report in"),
    pytest.mark.skipif(sys.platform == "win32", reason="the browser's debugging pipe is opened the POSIX way"),
]


class Browser:
    """A headless Chromium with an empty profile and no host to reach, driven over its debugging pipe."""

    def __init__(self, profile: Path) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        command = [sys.executable, "-c", LAUNCH, str(orders), str(answers), str(CHROMIUM), *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"], pass_fds=(orders, answers), stderr=subprocess.DEVNULL
        )
        os.close(orders)
        os.close(answers)
        self._buffer = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScriptExecutionDisabled", value=True)

    def close(self) -> None:
        os.close(self._orders)  # the browser ends with its pipe
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command of the DevTools protocol; events that come meanwhile are kept."""
        self._last += 1
        order = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def open(self, page: Path) -> None:
        """Loads ``page``, and waits until it has."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not self.happened("Page.loadEventFired"):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """Asks the browser about the page, whose own scripts stay off."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def happened(self, method: str) -> list[dict[str, Any]]:
        """Parameters of the events of one kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    @property
    def text(self) -> str:
        """What can be seen, white space collapsed."""
        return " ".join(self.evaluate("document.body.innerText").split())

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not answer"
            chunk = os.read(self._answers, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def show(browser: Browser, found: Evidence, folder: Path) -> None:
    page = folder / "report.html"
    page.write_text(html.render(found), "utf-8")
    browser.open(page)


def asked(browser: Browser) -> list[str]:
    """Addresses that the page asked for, itself left out."""
    return [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")][1:]


def complaints(browser: Browser) -> list[str]:
    return [str(event) for name in ("Log.entryAdded", "Runtime.consoleAPICalled") for event in browser.happened(name)]


def test_this_browser_would_notice_requests_and_runs_no_scripts(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<title>a</title><img src='http://example.invalid/x.png'><script>document.title = 'b'</script>", "utf-8"
    )
    browser.open(page)
    assert asked(browser) == ["http://example.invalid/x.png"]
    assert complaints(browser)
    assert browser.evaluate("document.title") == "a"


@pytest.mark.parametrize("found", [full(), full(ATTACK), family(200)], ids=["small", "hostile", "two hundred segments"])
def test_every_gate_can_be_seen_with_scripts_off(browser: Browser, found: Evidence, tmp_path: Path) -> None:
    show(browser, found, tmp_path)
    text = browser.text
    assert [row.id for row in found.gates if row.id not in text] == []
    assert "✗ BLOCKED" in text
    assert browser.evaluate("document.scripts.length") == 0


def test_the_page_asks_for_nothing_and_the_browser_has_no_complaint(browser: Browser, tmp_path: Path) -> None:
    show(browser, full(ATTACK), tmp_path)
    assert asked(browser) == []
    assert complaints(browser) == []


def test_its_own_looks_are_allowed_by_its_own_policy(browser: Browser, tmp_path: Path) -> None:
    show(browser, full(), tmp_path)
    verdict = "getComputedStyle(document.querySelector('#verdict'))"
    assert browser.evaluate(f"parseFloat({verdict}.borderLeftWidth)") > 4
    line = "getComputedStyle(document.querySelector('svg.chart path[style*=dasharray]'))"
    assert browser.evaluate(f"{line}.strokeDasharray") != "none"


def test_it_is_no_wider_than_the_window(browser: Browser, tmp_path: Path) -> None:
    names = [f"global-magnitude@0.{i}" for i in range(1, 10)]
    show(browser, evidence([gate(name) for name in names], [variant(name) for name in names]), tmp_path)
    assert browser.evaluate("document.documentElement.scrollWidth") <= browser.evaluate("window.innerWidth")


def pruned() -> Evidence:
    """Long names wherever pruning has names: layers, tensors, reasons."""
    layers = {f"model.decoder.layers.{i}.self_attention.output.dense": (0.9, 0.9 - i / 20, None) for i in range(9)}
    names = [f"model.decoder.layers.{i}.self_attention.output.dense.weight" for i in range(9)]
    row = imported(
        claimed_ratio=0.7, claimed_of="layer_weights", shape_changes=[(name, [64, 3, 7], [32, 3, 7]) for name in names]
    )
    found = full()
    return found.model_copy(update={"variants": [*found.variants, row], "sensitivity": sensitivity(layers)})


@pytest.mark.parametrize("width", [390, 820])
def test_on_a_phone_tables_and_wide_charts_scroll_and_the_page_does_not(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=2, mobile=True)
    try:
        show(browser, pruned(), tmp_path)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        letters = browser.evaluate(
            "Math.min(...[...document.querySelectorAll('#sensitivity svg text')]"
            ".map(t => t.getBoundingClientRect().height))"
        )
        assert letters > 8
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_the_names_of_layers_on_the_sensitivity_chart_fit_and_can_be_told_apart(
    browser: Browser, tmp_path: Path
) -> None:
    show(browser, pruned(), tmp_path)
    inside = browser.evaluate(
        "[...document.querySelectorAll('#sensitivity svg text')].filter(t => /output/.test(t.textContent))"
        ".map(t => [t.textContent, t.getBoundingClientRect().right < innerWidth])"
    )
    ends = [f"decoder.layers.{i}.self_attention.output.dense" for i in range(8, 2, -1)]
    assert sorted(name.removeprefix("…del.").removeprefix("…el.") for name, _ in inside) == sorted(ends)
    assert all(fits for _, fits in inside)


def test_names_beside_the_curves_do_not_lie_on_each_other(browser: Browser, tmp_path: Path) -> None:
    show(browser, family(40), tmp_path)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('svg.chart text')].filter(t => /^shop|^limit/.test(t.textContent))"
        ".map(t => t.getBoundingClientRect()).map(b => [b.top, b.bottom]).sort((a, b) => a[0] - b[0])"
    )
    assert len(boxes) >= 4
    overlaps = [max(0.0, above[1] - below[0]) for above, below in itertools.pairwise(boxes)]
    assert max(overlaps) < 4


def test_on_paper_nothing_stays_folded(browser: Browser, tmp_path: Path) -> None:
    gates = [gate("mag@0.5"), gate("mag@0.9", verdict=Verdict.FAIL, reason="only in the fold")]
    show(browser, evidence(gates, [variant("mag@0.5"), variant("mag@0.9")], candidates=["mag@0.5"]), tmp_path)
    assert "only in the fold" not in browser.text
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert "only in the fold" in browser.text
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    show(browser, pruned(), tmp_path)
    paper = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 8
