"""report.html in a browser: it renders, sorts, filters, prints, asks for nothing."""

import base64
import re

import numpy as np
import pytest
from chromium import PROGRAM, Browser

from attunet_jax.evaluate.page.write import write_report

HOSTILE = "</script><script>window.hostile = 1</script>"
CASES = [HOSTILE, *(f"case_{i:03d}" for i in range(1, 150))]
ORGANS = ["spleen", "left_kidney"]


def rows(seed):
    rng = np.random.default_rng(seed)
    return [
        {
            "case_id": case,
            "organ": organ,
            "dice": None if case == "case_007" else float(rng.uniform(0.4, 1)),
            "surface_distance_mm": float(rng.uniform(0, 9)),
            "truth_ml": float(rng.uniform(20, 300)),
            "spacing_mm": [float(rng.integers(1, 6)), 1.0, 1.0],
        }
        for case in CASES
        for organ in ORGANS
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    write_report(path, {"unet": rows(0), "attention": rows(1)})
    browser = Browser(folder / "profile")
    browser.open(path)
    yield browser
    browser.close()


CELLS = (
    "[...document.querySelectorAll('#cases tbody tr')]"
    ".map((row) => row.cells[{}].textContent)"
)


def head(name):
    return (
        "[...document.querySelectorAll('#cases thead th button')]"
        f".find((b) => b.textContent === '{name}')"
    )


def numbers(page, column):
    texts = page.value(CELLS.format(column))
    return [float(text) for text in texts if text != "–"]


def test_the_page_renders_without_an_error_or_a_request(page):
    assert page.value("document.querySelectorAll('svg').length") > 4
    assert page.value("document.querySelector('h1').textContent").startswith("Eval")
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    page_width, window_width = page.value(widths)
    assert page_width <= window_width
    assert page.told("Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []
    assert page.told("Log.entryAdded") == []
    asked = [p["request"]["url"] for p in page.told("Network.requestWillBeSent")]
    assert [u for u in asked if not u.startswith(("file:", "data:", "about:"))] == []
    assert page.value("window.hostile") is None


def test_the_table_of_cases_sorts_by_click_and_by_key_and_filters(page):
    assert page.value("document.querySelectorAll('#cases tbody tr').length") == 100
    found = numbers(page, 3)
    assert found == sorted(found) and found[0] < 0.45
    page.value(f"{head('Dice')}.click()")
    found = numbers(page, 3)
    assert found == sorted(found, reverse=True) and found[0] > 0.95
    page.value(f"{head('Case')}.focus()")
    page.press("Enter")
    cases = page.value(CELLS.format(0))
    assert cases[0] == HOSTILE and cases[-1] == "case_024"
    assert page.value(
        "document.querySelector('[aria-sort=ascending]').textContent"
    ) == ("Case")
    fill = (
        "(() => {{ const e = document.querySelector('#cases [name={}]');"
        " e.value = '{}'; e.dispatchEvent(new Event('input')); }})()"
    )
    page.value(fill.format("case", "CASE_00"))
    page.value(fill.format("organ", "left kidney"))
    page.value(fill.format("network", "unet"))
    assert page.value(CELLS.format(0)) == [f"case_{i:03d}" for i in range(1, 10)]
    page.value(f"{head('Dice')}.click()")
    assert page.value(CELLS.format(0))[-1] == "case_007"  # undefined: the last
    assert page.value("document.querySelector('#cases output').textContent") == (
        "9 of 9 rows (600 without a filter)"
    )
    page.value(fill.format("most", "0"))
    assert page.value(CELLS.format(0)) == []


def test_tables_sort_and_the_page_prints_on_a_few_sheets(page):
    page.value(
        "document.querySelector('table.sortable thead th:nth-child(4) button').click()"
    )
    shown = page.value(
        "[...document.querySelector('table.sortable').tBodies[0].rows]"
        ".map((row) => parseFloat(row.cells[3].textContent.replace('−', '-')))"
    )
    assert len(shown) == 4 and shown == sorted(shown)
    pdf = base64.b64decode(page.call("Page.printToPDF")["data"])
    sheets = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= sheets <= 15
