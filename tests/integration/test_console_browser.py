"""The console in a real browser, on a running federation: what it shows is what the topics say, and all can use it."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import urllib3
from playwright.sync_api import Page, expect, sync_playwright

from aggregation.fold.rejections import ACCEPTED
from schemas.topics import metrics_topic
from tests import factories
from tests.integration.pipeline import Federation, Running, start_process
from tests.requirements import find_browser
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from backends.settings import Settings

ROOT = Path(__file__).parents[2]
AXE = (ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js").read_text()
SHOTS = ROOT / "build" / "screenshots"
POLICY = factories.policy(
    window={"updates_max": 4, "seconds_max": 0.5}, buffer={"updates": 8, "seconds_max": 1.0}
)
REGION = "eu"
CUT_OFF = """[...document.querySelectorAll('#page *')].filter((one) => one.getClientRects().length
  && one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('scroll-box, .scroll, pre, .unseen, thead')
).map((one) => one.outerHTML.slice(0, 120))"""
"""What reaches beyond the window and is in nothing that scrolls."""
METERS = """[...document.querySelectorAll('td .meter')].map((one) => [
  /([\\d.]+) %/.exec(one.innerText)?.[1], parseFloat(one.querySelector('.bar').style.getPropertyValue('--share'))
]).filter(([said]) => said !== undefined)"""
"""The percentage beside each bar, and how full the bar is."""
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PATIENCE_MS = 120_000
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
PAGES = ("/", "/versions", "/versions/1", "/flow", "/refused", "/defence", "/fleet", "/audit")
DOCS = ("/docs/runbooks/process-died.md", "/docs/errors/FLV-2101.md", "/docs/runbooks/README.md")

pytestmark = [pytest.mark.timeout(600), pytest.mark.needs("chromium")]


@dataclass
class Watched:
    """A federation that works, and the console on it."""

    federation: Federation
    worker: Running
    console: Running
    address: str

    @property
    def token(self) -> str:
        return (self.federation.settings.home / "console-token").read_text().strip()

    def count(self, outcome: str) -> int:
        """How many verdicts of this outcome stand in the topics."""
        return sum(
            verdict.outcome == outcome
            for slot in self.federation.slots
            for verdict in self.federation.verdicts(slot)
        )


@pytest.fixture(scope="module")
def watched(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    federation = Federation(stack, tmp_path_factory.mktemp("console"), {REGION: 2}, POLICY)
    console = start_process(
        stack.home, federation.folder, ["console", "--port", "0", "--task", federation.task], "console"
    )
    try:
        worker = federation.start("worker", "worker-0")
        federation.start("merger", "merger")
        publish(federation, range(16))
        slot = (REGION, 0)
        device = factories.devices(1, partition=0, partitions=2, start=5000)[0]
        federation.await_verdicts(slot, federation.append(slot, b"no update at all"))
        offset = federation.append(slot, federation.update(device, base=0, update_id=HOSTILE))
        federation.await_verdicts(slot, offset)
        federation.await_version(1)
        address = until(
            lambda: re.search(r"console: (http://\S+)", console.log), f"an address\n{console.log}"
        )
        until(partial(shows_version_1, address[1], federation.task), f"it shows version 1\n{console.log}")
        yield Watched(federation, worker, console, address[1])
        assert console.stop() == 0, console.log
        assert "Traceback" not in console.log, console.log
    finally:
        console.process.kill()
        console.process.wait()
        federation.end()


def shows_version_1(address: str, task: str) -> bool:
    """Until it has found broker and store, it answers 502."""
    server = urllib.parse.urlsplit(address).netloc
    answer = urllib3.request(
        "GET", f"http://{server}/api/tasks/{task}/versions/1", retries=False, timeout=WAIT_S
    )
    return answer.status == 200


def publish(federation: Federation, numbers: range) -> None:
    """One honest update each on version 0, half of them in each partition."""
    for partition in range(2):
        for device in factories.devices(
            len(numbers) // 2, partition=partition, partitions=2, start=numbers.start
        ):
            federation.append((REGION, partition), federation.update(device))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error, and nothing that the content security policy has to stop."""
    context = browser.new_context(viewport=DESK)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    # What the server refuses the browser logs by itself: a wrong token is answered with 401.
    assert [text for text in wrong if "401" not in text] == []


def go(page: Page, watched: Watched, path: str) -> None:
    """Open a page of the console, and wait until it has what it shows."""
    page.goto(f"{watched.address.rstrip('/')}{path}" if path in DOCS else f"{watched.address}#{path}")
    expect(page.locator("#page h1").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[data-test=loading]")).to_have_count(0, timeout=PATIENCE_MS)


def test_what_it_shows_is_what_the_topics_say_and_goes_on_by_itself(page: Page, watched: Watched) -> None:
    federation = watched.federation
    go(page, watched, "/")
    shows_what_stands(page, watched)
    expect(page.locator("#regions")).to_contain_text("undecodable")
    before = federation.head
    publish(federation, range(100, 116))
    federation.await_version(before + 1)
    shows_what_stands(page, watched)


def shows_what_stands(page: Page, watched: Watched) -> None:
    """Wait until the page has the newest version and all accepted updates; both may go on meanwhile."""
    head, accepted = page.locator("#head-version"), page.locator("#regions tbody td:nth-child(3)")
    until(
        lambda: (
            head.inner_text() == str(watched.federation.head)
            and accepted.inner_text() == str(watched.count(ACCEPTED))
        ),
        "the page shows what stands in the topics",
        PATIENCE_MS / 1000,
    )


def evaluate_all(watched: Watched) -> None:
    """As an evaluator would that has caught up: no version waits for it."""
    federation = watched.federation
    for version in range(1, federation.head + 1):
        record = {"kind": "evaluation", "task": federation.task, "version": version, "loss": 2.0}
        federation.writer.append_now(metrics_topic(federation.task), msgspec.json.encode(record), partition=0)


def test_a_regression_shows_its_own_metric_its_best_version_and_what_each_changed(
    page: Page, watched: Watched
) -> None:
    federation = watched.federation
    for version, mae in ((1, 9.0), (2, 1.25), (3, 4.0)):
        numbers = {"loss": 2.0, "mae": mae, "metric": "mae", "better": "lower"}
        record = {"kind": "evaluation", "task": federation.task, "version": version, **numbers}
        federation.writer.append_now(metrics_topic(federation.task), msgspec.json.encode(record), partition=0)
    go(page, watched, "/versions")
    expect(page.locator("#curve-title")).to_have_text("Mae by version", timeout=PATIENCE_MS)
    expect(page.locator("#curve")).to_contain_text("lower is better: the best is version 2, 1.2500")
    assert page.locator("#curve, #versions").evaluate_all("all => all.map(one => one.id)") == [
        "curve",
        "versions",
    ]
    best = page.locator("#versions tbody tr", has=page.locator(".chip.best"))
    expect(best.locator("th")).to_contain_text("2")
    expect(best).to_contain_text("−7.7500 better")
    expect(page.locator("#versions tbody")).to_contain_text("+2.7500 worse")
    expect(page.locator("#versions")).not_to_contain_text("Accuracy")
    go(page, watched, "/")
    expect(page.locator("#learning-title")).to_have_text("Mae by version")
    expect(page.locator("#stat-metric dt")).to_have_text("Mae")


def things(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def test_a_version_is_audited_by_a_button_that_asks_for_the_token(page: Page, watched: Watched) -> None:
    go(page, watched, "/")
    shows_what_stands(
        page, watched
    )  # a console that has not seen the store yet answers 502 to pages of versions
    go(page, watched, "/versions/1")
    manifest = watched.federation.store.manifest(1)
    windows, partitions = len(manifest.inputs), len({(one.region, one.partition) for one in manifest.inputs})
    said = f"{things(windows, 'window')} of {things(partitions, 'partition')}"  # the first to come make a version
    expect(page.locator("#tiles")).to_contain_text(said)
    expect(page.locator("#audit-card")).to_contain_text("audit --to 1 --task")
    page.click("#audit-button")
    page.fill("#token", "not the token")
    page.keyboard.press("Enter")
    expect(page.locator("#audit-problem")).to_be_visible()
    if not page.locator("#token").is_visible():
        page.click("#audit-button")
    page.fill("#token", watched.token)
    page.keyboard.press("Enter")
    expect(page.locator("#audit")).to_have_attribute("data-state", "identical", timeout=60_000)
    expect(page.locator("#audit-result")).to_contain_text("identical")
    go(page, watched, "/")
    expect(page.locator("#stat-proven")).to_contain_text("version 1")


def test_text_of_a_device_is_text(page: Page, watched: Watched) -> None:
    go(page, watched, "/")
    page.fill("#search-text", HOSTILE)
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_be_visible()
    expect(page.locator("#page")).to_contain_text(HOSTILE)
    assert page.locator("#page img").count() == 0
    assert page.title() != "owned"


def test_one_record_is_found_by_its_place_and_says_why_it_was_refused(page: Page, watched: Watched) -> None:
    verdict = next(v for v in watched.federation.verdicts((REGION, 0)) if v.outcome == "undecodable")
    go(page, watched, "/")
    page.keyboard.press("/")
    page.keyboard.type(f"{REGION}[0]@{verdict.offset}")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_attribute("data-outcome", "undecodable")
    expect(page.locator("#page")).to_contain_text(" inspect ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_problem_of_access(browser: Browser, watched: Watched, scheme: Any) -> None:
    context = browser.new_context(viewport=DESK, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    found: dict[str, list[str]] = {}
    drawn_anywhere = 0
    SHOTS.mkdir(parents=True, exist_ok=True)
    for path in PAGES + DOCS:
        go(page, watched, path)
        page.screenshot(
            path=SHOTS / f"{path.strip('/').replace('/', '-') or 'now'}-{scheme}.png", full_page=True
        )
        meters = page.evaluate(METERS)
        drawn_anywhere += len(meters)
        for said, drawn in meters:
            assert drawn == pytest.approx(float(said), abs=1.0), f"{path}: a bar is full at 100 %"
        heads = page.locator("thead th").all_inner_texts()
        assert "Share" not in heads, f"{path}: a share of what?"
        page.evaluate(AXE)
        results = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found[path] = [
            f"{one['id']}: {one['nodes'][0]['html'][:120]}"
            for one in results["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    context.close()
    assert drawn_anywhere > 5
    assert {path: problems for path, problems in found.items() if problems} == {}


def test_nothing_is_wider_than_a_phone(browser: Browser, watched: Watched) -> None:
    context = browser.new_context(viewport=PHONE)  # type: ignore[arg-type]
    page = context.new_page()
    for path in PAGES + DOCS:
        go(page, watched, path)
        page.screenshot(
            path=SHOTS / f"{path.strip('/').replace('/', '-') or 'now'}-phone.png", full_page=True
        )
        # What is cut off is inside a box that scrolls, or nowhere.
        assert page.evaluate(CUT_OFF) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
    context.close()


def test_a_list_leads_back(page: Page, watched: Watched) -> None:
    """Two pages into a device's timeline, of one record a page as the address says, and back again."""
    ((device, *_),) = [factories.devices(1, partition=0, partitions=2, start=0)]
    ends = [len(watched.federation.verdicts((REGION, 0))) - back for back in (1, 2)]
    for end in ends:
        go(page, watched, f"/fleet/devices/{device}?region={REGION}&before={end}")
    back = page.locator("[data-test=pager] a", has_text="Back")
    expect(back).to_have_attribute("href", re.compile(f"before={ends[0]}(&|$)"))
    back.click()
    expect(back).not_to_have_attribute("href", re.compile("before="))
    back.click()
    expect(back).to_have_count(0)


def test_the_keyboard_reaches_every_page(page: Page, watched: Watched) -> None:
    go(page, watched, "/")
    focused = "(document.activeElement && (document.activeElement.id || document.activeElement.tagName))"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip", "the first stop leads past all others"
    for name in ("versions", "flow", "refused", "defence", "fleet", "audit", "now"):
        for _ in range(60):
            if page.evaluate(focused) == f"nav-{name}":
                break
            page.keyboard.press("Tab")
        assert page.evaluate(focused) == f"nav-{name}"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus on {name} cannot be seen"
        page.keyboard.press("Enter")
        expect(page.locator(f"#nav-{name}")).to_have_attribute("aria-current", "page")
        page.locator("#skip").focus()


def test_a_worker_that_is_killed_while_one_looks_makes_the_health_word_another(
    page: Page, watched: Watched
) -> None:
    evaluate_all(watched)
    go(page, watched, "/")
    expect(page.locator("#health")).to_have_attribute("data-level", "ok", timeout=PATIENCE_MS)
    watched.worker.kill()
    expect(page.locator("#health")).not_to_have_attribute("data-level", "ok", timeout=PATIENCE_MS)
    expect(page.locator("#processes")).to_contain_text("gone")
    mend = page.locator("[data-test=health-mend]")
    task = watched.federation.task
    expect(mend.locator("code")).to_contain_text(f"worker --task {task} --region {REGION} --name worker-0")
    mend.locator("[data-test=runbook]").click()
    expect(page.locator("h1")).to_have_text("A process died")
    page.go_back()
    watched.federation.start("worker", "worker-0")
    evaluate_all(watched)
    expect(page.locator("#health")).to_have_attribute("data-level", "ok", timeout=2 * PATIENCE_MS)
