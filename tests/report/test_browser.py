"""The report in a real browser: it loads, sorts, shows its images, and works in dark mode and in print."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from support.browser import PROGRAM, Browser
from support.report_summary import model_of, summary_of, verified_pair

from romacli.report.advice import verdict
from romacli.report.charts import figures
from romacli.report.page import page
from romacli.report.summary import CameraSummary, ModelSummary, PairRow
from romacli.report.thumbnails import PairPicture, Thumbnails, _data_url

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
COUNT = 6


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the report of a small job, loaded and drawn."""
    import cv2

    pairs = [verified_pair(i, j, 10 + 7 * ((3 * i + 5 * j) % 11)) for i in range(COUNT) for j in range(i + 1, COUNT)]
    pairs[3] = replace(pairs[3], state="matched", inliers=0)
    pairs[4] = PairRow(0, 5, "rejected", 0.0, 0, 0)
    summary = summary_of(
        COUNT, pairs, model=ModelSummary(COUNT, 40, 3.0, 0.5, 1, {3: 40}, (CameraSummary("SIMPLE_RADIAL", 1, COUNT),))
    )
    model = model_of(summary, points=40)
    picture = _data_url(cv2.imencode(".jpg", np.full((30, 60, 3), 90, np.uint8))[1].tobytes())
    names = [image.name for image in summary.images]
    thumbnails = Thumbnails(
        dict.fromkeys(names, picture), {}, [PairPicture("best", (names[0], names[1]), "good", picture)]
    )
    folder = tmp_path_factory.mktemp("a page ü")
    path = folder / "report.html"
    html = page(summary, verdict(summary), ["look"], [], figures(summary, {0: model}), thumbnails, twin="report.json")
    path.write_text(html, encoding="utf-8")
    with Browser(folder / "profile") as opened:
        opened.send("Page.navigate", url=path.as_uri())
        opened.wait_for("document.documentElement?.dataset.drawn !== undefined && document.readyState === 'complete'")
        yield opened


def column(browser: Browser, index: int) -> list[str]:
    return browser.value(
        f"[...document.querySelectorAll('#pairs tbody tr')].map(row => row.cells[{index}].textContent)"
    )


def click(browser: Browser, heading: str) -> str | None:
    """Click a heading of the table of pairs next to its text; returns the resulting sort direction."""
    return browser.value(
        "(() => { const heading = [...document.querySelectorAll('#pairs th')]"
        f".find(th => th.textContent === '{heading}'); heading.click();"
        " return heading.getAttribute('aria-sort'); })()"
    )


def test_it_loads_alone_and_without_an_error(browser: Browser) -> None:
    assert browser.told("Runtime.exceptionThrown") == []
    errors = [call for call in browser.told("Runtime.consoleAPICalled") if call["type"] == "error"]
    assert errors == []
    asked = {request["request"]["url"].partition(":")[0] for request in browser.told("Network.requestWillBeSent")}
    assert asked <= {"file", "data", "blob", "about"}


def test_every_figure_is_drawn(browser: Browser) -> None:
    drawn = browser.value(
        "Object.fromEntries([...document.querySelectorAll('.chart')]"
        ".map(chart => [chart.dataset.figure, chart.querySelectorAll('.main-svg, canvas').length]))"
    )
    assert set(drawn) == {"stages", "above", "cloud", "graph", "matrix", "keypoints", "tracks"}
    assert all(drawn.values())
    assert browser.value("document.querySelectorAll('[data-figure=cloud] canvas').length") > 0


def test_pictures_are_shown(browser: Browser) -> None:
    widths = browser.value("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 1 + 2 * len(column(browser, 0)) + COUNT
    assert all(width > 0 for width in widths)


def test_the_table_of_pairs_sorts_by_a_click(browser: Browser) -> None:
    # Initially the weakest of the pairs that have matches come first, rejected ones last.
    first = column(browser, 5)
    assert first[-1] == "–"
    inliers = [int(text) for text in first[:-1]]
    assert inliers == sorted(inliers)
    assert len(set(inliers)) > 3
    assert click(browser, "inliers") == "descending"
    assert [int(text) for text in column(browser, 5)[:-1]] == inliers[::-1]
    assert click(browser, "inliers") == "ascending"
    assert column(browser, 5) == first
    assert click(browser, "with") == "ascending"
    assert column(browser, 1) == sorted(column(browser, 1))


def test_the_table_of_pairs_can_be_filtered(browser: Browser) -> None:
    typed = "input.value = {}; input.dispatchEvent(new Event('input'))"
    find = "const input = document.querySelector('#pairs').closest('section').querySelector('input'); "
    browser.value(f"(() => {{ {find}{typed.format(repr('000 003'))} }})()")
    assert list(zip(column(browser, 0), column(browser, 1), strict=True)) == [("000.jpg", "003.jpg")]
    browser.value(f"(() => {{ {find}{typed.format(repr(''))} }})()")
    assert len(column(browser, 0)) == COUNT * (COUNT - 1) // 2


def test_pairs_can_be_chosen_by_the_states_that_are_shown(browser: Browser) -> None:
    select = "document.querySelector('#pairs').closest('section').querySelector('select')"
    offered = browser.value(f"[...{select}.options].map(option => option.value)")
    assert set(offered[1:]) == set(column(browser, 2)) == {"verified", "unverified", "rejected"}
    for state in offered:
        browser.value(f"(() => {{ {select}.value = '{state}'; {select}.dispatchEvent(new Event('change')); }})()")
        assert not state or set(column(browser, 2)) == {state}
    browser.value(f"(() => {{ {select}.value = ''; {select}.dispatchEvent(new Event('change')); }})()")


def test_a_picture_enlarges_and_closes(browser: Browser) -> None:
    width = "document.querySelector('{} img').getBoundingClientRect().width"
    before = browser.value(width.format(".gallery"))
    browser.value("document.querySelector('.gallery button').click()")
    assert browser.value(width.format("dialog[open]")) > 1.5 * before
    browser.value("document.querySelector('dialog').click()")
    assert browser.value("document.querySelector('dialog[open]')") is None


def test_the_diagonal_of_the_matrix_has_no_value(browser: Browser) -> None:
    cells = browser.value("document.querySelector('[data-figure=matrix]').data[0].z")
    assert [cells[k][k] for k in range(COUNT)] == [None] * COUNT
    assert cells[0][1] == 50
    assert browser.value("document.querySelector('[data-figure=matrix]').data[0].hoverongaps") is False


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_off(browser: Browser, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", **metrics)
    charts = "[...document.querySelectorAll('.chart .main-svg')].every(svg => svg.clientWidth < innerWidth)"
    browser.wait_for(charts)
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    beyond = (
        "[...document.querySelectorAll('.tile b, .tile span, td, th')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    )
    assert (
        browser.value(f"{beyond}.filter(e => getComputedStyle(e).display !== 'inline').map(e => e.textContent)") == []
    )
    lines = "[...document.querySelectorAll('.tile b')].map(tile => tile.clientHeight)"
    assert len(set(browser.value(lines))) == 1
    assert browser.value("[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)") == [0, 0]
    browser.send("Emulation.clearDeviceMetricsOverride")


def test_it_follows_the_colour_scheme_and_prints_light(browser: Browser) -> None:
    def brightness() -> tuple[float, float]:
        """The brightness of the page and of the text in a figure, from 0 to 255."""
        colours = browser.value(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('[data-figure=stages] .ytick text')).fill]"
        )
        return tuple(float(np.mean([float(part) for part in colour.strip("rgb()").split(",")])) for colour in colours)  # type: ignore[return-value]

    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    paper, ink = brightness()
    assert paper > 200 > 100 > ink
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait_for(
        "getComputedStyle(document.querySelector('[data-figure=stages] .ytick text')).fill !== 'rgb(27, 36, 48)'"
    )
    paper, ink = brightness()
    assert paper < 60 < 180 < ink
    pdf = base64.b64decode(browser.send("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    browser.send(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert brightness()[0] > 200
