"""Pages in a real browser, where there is one: nothing is cut off, tables sort, figures enlarge, nothing is loaded."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_repshape import page, plots

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="there is no chromium with its chromedriver")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    figures = []
    for number in range(2):
        figure = plots.new_figure(12, 4)
        figure.subplots().plot([0, number])
        figures.append(page.Shown(plots.save_figure(figure, folder / f"{number}.png", vector=False), f"line {number}"))
    rows = [["ten", "10.5 %"], ["none", "–"], ["two", "2"], ["many", "1,200"], ["less", "−3"]]
    wide = page.table([f"a wide heading {k}" for k in range(20)], [["0"] * 20], [True] * 20)
    sections = [
        page.Section("tables", "Tables", page.table(["name", "value"], rows, [False, True])),
        page.Section("wide one", "Wide <one>", [*wide, *page.gallery(figures), page.preformatted("x" * 900)]),
        page.Section("long", "Long", page.table(["n"], [[str(n)] for n in range(200)], [True])),
    ]
    cards = [page.Card(f"card {k}", "14.17 % → 2.42 %", "A sentence about it.", "Paper, 2019") for k in range(5)]
    target = folder / "page.html"
    target.write_text(page.document("A title", sections, about=["word" * 60], cards=cards), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def browser(file: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    own = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    own.get(file.as_uri())
    yield own
    own.quit()


def column(browser: Any, number: int) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelector('table').tBodies[0].rows].map(row => row.cells[arguments[0]].innerText)",
        number,
    )


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_does_not_scroll_sideways(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    seen, whole, abreast = browser.execute_script(
        "const tops = [...document.querySelectorAll('figure')].map(one => one.getBoundingClientRect().top);"
        "const root = document.documentElement;"
        "return [root.clientWidth, root.scrollWidth, tops[0] === tops[1]]"
    )
    assert whole <= seen <= width
    assert abreast is (width == 1400)


def test_a_figure_and_its_unit_stay_in_one_line(browser: Any) -> None:
    lines = browser.execute_script(
        "const own = document.querySelector('.value'), text = own.firstChild, range = document.createRange();"
        "let most = 0; for (let width = 100; width < 300; width += 5) { own.style.width = `${width}px`;"
        "  for (const part of text.data.matchAll(/[0-9.]+.%/gu)) {"
        "    range.setStart(text, part.index); range.setEnd(text, part.index + part[0].length);"
        "    const tops = [...range.getClientRects()].map(one => Math.round(one.top));"
        "    most = Math.max(most, new Set(tops).size) } }"
        "own.style.width = ''; return most"
    )
    assert lines == 1


def test_the_navigation_stays_in_sight_and_leads_to_its_sections(browser: Any) -> None:
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'; document.links[1].click()")
    top, nav = browser.execute_script(
        "return [document.getElementById('wide one'), document.querySelector('nav')]"
        ".map(one => one.getBoundingClientRect().top)"
    )
    assert abs(top - 16) < 40 and 0 <= nav < 40


def test_a_table_sorts(browser: Any) -> None:
    heads = browser.find_elements("css selector", "table:first-of-type thead th")
    heads[1].click()
    assert column(browser, 1) == ["−3", "2", "10.5 %", "1,200", "–"]
    heads[1].click()
    assert column(browser, 1) == ["1,200", "10.5 %", "2", "−3", "–"], "a dash is last whichever way"
    heads[0].send_keys("\n")
    assert column(browser, 0) == ["less", "many", "none", "ten", "two"]


def test_a_figure_is_enlarged_and_closed(browser: Any) -> None:
    image = browser.find_element("css selector", "figure img")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", image)
    image.click()
    dialog = browser.find_element("css selector", "dialog")
    large = dialog.find_element("css selector", "img")
    assert dialog.get_attribute("open") and large.size["width"] > image.size["width"]
    browser.switch_to.active_element.send_keys("\ue00c")  # Esc
    assert not dialog.get_attribute("open")
    image.click()
    dialog.click()
    assert not dialog.get_attribute("open")


def test_nothing_is_loaded_and_nothing_is_complained_about(browser: Any, file: Path) -> None:
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert file.as_uri() in urls
    assert all(url.split("#")[0] == file.as_uri() or url.startswith("data:") for url in urls)
