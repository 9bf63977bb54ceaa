"""The page of every family: what it can show is there, what it cannot is explained, nothing is fetched, and in a real
browser the parts that move do move."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import latent
from latent import config
from latent.analysis import projection
from latent.errors import UserError
from latent.report import build, evidence, figures, page
from latent.report.sections import ORDER, curves
from latent.train import train

CONVOLUTIONS, STEPS = {"features", "similarity"}, {"trajectory"}
FAMILIES = {
    "configs/vae.py:tiny": set(ORDER) - CONVOLUTIONS - STEPS,
    "configs/autoencoder.py:tiny": set(ORDER) - CONVOLUTIONS - STEPS - {"samples", "neighbours"},  # of a codebook
    "configs/gan.py:tiny": {"overview", "curves", "samples", "map", "neighbours", "metrics"},  # of points, not images
    "configs/gan.py:tiny_dcgan": set(ORDER) - STEPS - {"reconstructions", "structure", "statistics"},
    "configs/latent_ddpm.py:tiny": {"overview", "curves", "samples", "map", "trajectory", "neighbours", "metrics"},
    "configs/classifier.py:tiny": {"overview", "curves", "map", "structure", "statistics", "metrics", *CONVOLUTIONS},
}
LIMIT, SAMPLES = 40, 60


class Page(HTMLParser):
    """What a browser would load, and the text of every section."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.absent, self.present, self.ids = [], {}, set(), set()
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.loads += [(tag, given[name]) for name in ("src", "href", "srcset", "data", "poster") if name in given]
        self.ids.add(given.get("id"))
        if tag == "section":
            self._section = given["id"]
            (
                self.absent.setdefault(given["id"], "")
                if given.get("class") == "absent"
                else self.present.add(given["id"])
            )

    def handle_data(self, text):
        if self._section in self.absent:
            self.absent[self._section] += text


FAST = ("configs/vae.py:tiny",)
PARAMETERS = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name.partition("/")[2]) for name in FAMILIES
]


@pytest.fixture(scope="module", params=PARAMETERS)
def report(request, tmp_path_factory):
    """A trained and evaluated run of every family and its report; without UMAP, which compiles for half a minute."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(projection, "available", lambda method: method != "umap")
    monkeypatch.setattr(evidence, "SAMPLES", SAMPLES)
    request.addfinalizer(monkeypatch.undo)
    workdir = tmp_path_factory.mktemp("runs") / "run"
    assert train(config.load(request.param).to_dict(), workdir) == 0
    run = latent.load(workdir)
    run.evaluate(split="test")
    told = []
    index = build.build(run, workdir / "report", "test", LIMIT, say=told.append)
    return run, index, index.read_text(), Page(index.read_text()), FAMILIES[request.param], told


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_sections_are_there_or_say_why_not(report):
    _, _, _, found, expected, told = report
    assert found.present == expected
    assert set(found.absent) == set(ORDER) - expected
    assert all(len(reason.split()) > 5 for reason in found.absent.values()), found.absent
    assert [line.split()[0] for line in told[:-1]] == [*ORDER[1:], "overview"]


def test_nothing_is_fetched_and_it_is_light(report):
    _, index, text, found, _, _ = report
    assert found.loads and all(value.startswith(("data:", "#")) for _, value in found.loads)
    assert not re.search(r"url\((?!['\"]?data:)|@import", text[: text.index("</style>")])
    assert index.stat().st_size < 15e6


def test_the_data_of_the_page_fit_each_other(report):
    run, _, text, _, expected, _ = report
    data = data_of(text)
    for place, plot in data["plots"].items():
        assert f'data-plot="{place}"' in text and plot["data"], place
    assert set(re.findall(r'data-plot="([\w-]+)"', text)) <= set(data["plots"])
    codes = data["sections"]["map"]
    size = len(codes["caption"])
    assert size == LIMIT + (0 if run.model.encode is not None else SAMPLES)
    assert all(len(axis) == size for one in codes["maps"] for axis in one["points"])
    assert all(len(colour["values"]) == size for colour in codes["colours"])
    assert len(codes["neighbours"]) == size and np.max(codes["neighbours"]) < size
    assert all("trustworthiness" in one["note"] for one in codes["maps"])
    if "traversals" in expected:
        walks = data["sections"]["traversals"]
        for kind in walks["kinds"]:
            sheet = walks["sheets"][kind["key"]]
            assert sheet["columns"] ** 2 >= len(walks["starts"]) * len(kind["directions"]) * walks["steps"]


def test_numbers_carry_their_passports(report):
    run, _, text, _, _, _ = report
    rows = json.loads((run.workdir / "evaluation" / f"{run.step}.json").read_text())
    for row in rows:
        assert f"<td>{row['name']}</td>" in text
    assert text.count("<summary>protocol</summary>") == sum(not row["reason"] for row in rows)
    assert rows[0]["protocol"]["data_sha256"] in text and rows[0]["provenance"]["config_sha256"] in text


def test_figures_lie_beside_it_as_pictures_and_for_print(report):
    run, index, _, _, _, _ = report
    found = {path.name for path in (index.parent / build.FIGURES).iterdir()}
    assert "curves.png" in found and {name.replace(".png", ".pdf") for name in found if name.endswith(".png")} <= found
    assert ("samples.png" in found) == (run.model.sample is not None and len(run.spec.shape) == 3)
    assert ("map_tsne.png" in found or "map_codes.png" in found) == (run.model.encode is not None)
    assert figures.ENDINGS == ("png", "pdf")


@pytest.mark.slow
def test_a_report_is_repeated_to_the_byte_but_for_its_date(report, tmp_path):
    """All but the maps, whose seeds have tests of their own, and cost most."""
    without_date = lambda path: re.sub(r"Made [\d-]+ [\d:]+", "", path.read_text())  # noqa: E731
    names = sorted(set(ORDER) - {"map"})
    one, two = (build.build(latent.load(report[0].workdir), tmp_path / name, "test", LIMIT, names) for name in "ab")
    assert without_date(one) == without_date(two)


def test_some_sections_only(report, tmp_path):
    run, _, _, _, _, _ = report
    index = build.build(run, tmp_path / "some", "validation", LIMIT, ["metrics"])
    assert Page(index.read_text()).present == {"overview", "metrics"}
    with pytest.raises(UserError, match=r"--sections='maps'.*'map'"):
        build.build(run, tmp_path / "bad", "test", LIMIT, ["maps"])
    with pytest.raises(UserError, match="--limit=3 "):
        build.build(run, tmp_path / "bad", "test", 3)
    assert not (tmp_path / "bad").exists()


def test_another_run_is_compared_by_what_it_says(report, tmp_path):
    """A run against itself: every layer and code is like itself."""
    run, _, _, _, _, _ = report
    index = build.build(run, tmp_path / "twice", "test", LIMIT, ["similarity"], other=run)
    if "cka-other" not in index.read_text():
        assert run.model.encode is None and "similarity" not in report[4]
        return
    trace = data_of(index.read_text())["plots"]["cka-other"]["data"][0]
    values = np.array(trace["z"], float)
    assert trace["x"] == trace["y"] and values.shape == (len(trace["x"]),) * 2
    np.testing.assert_allclose(np.diag(values), 1.0, atol=2e-3)
    np.testing.assert_allclose(values, values.T, atol=2e-3)


def test_another_run_must_have_seen_the_same_examples(report):
    run, other = report[0], copy.copy(report[0])
    changed = copy.copy(run.data("test"))
    changed.protocol = changed.protocol | {"data_sha256": "another"}
    other._data = {"test": changed}
    with pytest.raises(UserError, match=r"--against=.* has other examples in its test split"):
        evidence.Evidence(run, "test", LIMIT, ["similarity"], other)


def test_scripts_find_what_they_look_for(report):
    """Without a browser: every element and every part of the data that a script asks for is in the page, where the
    script's section is."""
    _, _, text, found, expected, _ = report
    for name in ("map", "traversals"):
        script = (page.TEMPLATES / f"{name}.js").read_text()
        assert script.strip() in text
        if name in expected:
            elements = set(re.findall(r'(?:getElementById|choice)\("([\w-]+)"', script))
            assert elements and elements <= found.ids
            parts = set(re.findall(r"\bdata\.(\w+)", script))
            assert parts and parts <= set(data_of(text)["sections"][name])
    assert set(re.findall(r'getElementById\("([\w-]+)"', (page.TEMPLATES / "page.js").read_text())) <= found.ids


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here, which reads scripts without a browser")
@pytest.mark.parametrize("script", sorted(page.TEMPLATES.glob("*.js")), ids=lambda path: path.name)
def test_scripts_are_well_formed(script):
    found = subprocess.run(["node", "--check", str(script)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr


# In a browser --------------------------------------------------------------------------------------------------

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)
SIZES = {"wide": (1400, 900), "narrow": (420, 800)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser, index, size="wide", theme="light"):
    """The page, laid out for a size and a theme, when everything is drawn."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wanted = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    browser.get(index.absolute().as_uri())
    waiting = WebDriverWait(browser, 60)
    waiting.until(lambda b: b.execute_script("return !!document.querySelector('#map-plot .scatterlayer .point')"))
    return waiting


def picture(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0]).toDataURL()", selector)


def background(browser):
    words = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(int(number) for number in re.findall(r"\d+", words)[:3])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_without_errors_and_fits(report, browser, size, theme):
    opened(browser, report[1], size, theme)
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not errors
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZES[size][0]
    assert browser.execute_script("return document.getElementById('map-plot').clientWidth") > 0.4 * SIZES[size][0]
    assert (background(browser) < 200) == (theme == "dark")
    browser.execute_script("document.getElementById('theme').click()")
    assert (background(browser) < 200) == (theme == "light")
    drawn = "return [...document.querySelectorAll('main > section > :not(details) [data-plot]')].map(p => !!p.data)"
    assert all(browser.execute_script(drawn))


def test_pointing_at_a_point_shows_its_picture(report, browser):
    run, index, text, _, _, _ = report
    opened(browser, index)
    where = """
        const place = document.getElementById("map-plot"), {xaxis, yaxis} = place._fullLayout;
        place.scrollIntoView({block: "center", behavior: "instant"});
        const box = place.getBoundingClientRect(), all = [];
        for (const {x, y, customdata} of place.data) {
            x.forEach((_, i) => all.push([customdata[i], box.left + xaxis._offset + xaxis.l2p(x[i]),
                                          box.top + yaxis._offset + yaxis.l2p(y[i])]));
        }
        const away = ([one, x, y]) => Math.min(...all.filter(([other]) => other !== one)
            .map(([, left, top]) => Math.hypot(left - x, top - y)));
        return all.sort((a, b) => away(b) - away(a)).slice(0, 2);  // those that no other point hides
    """
    images = len(run.spec.shape) == 3
    captions = data_of(text)["sections"]["map"]["caption"]
    for number, x, y in browser.execute_script(where):
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 5, "y": 5})
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
        WebDriverWait(browser, 20).until(lambda b: not b.execute_script("return document.getElementById('tip').hidden"))
        told = browser.execute_script("return document.getElementById('map-facts').textContent")
        assert captions[number] in told
        if images:
            script = (
                "const done = arguments[1], sheet = loadSheet(REPORT.sections.map.sheet);"
                "sheet.ready.then(() => { const c = document.createElement('canvas'); paint(c, sheet, arguments[0]);"
                "done(c.toDataURL()); });"
            )
            expected = browser.execute_async_script(script, number)
            assert picture(browser, "#tip canvas") == picture(browser, "#map-picture") == expected


def test_the_slider_changes_what_is_seen(report, browser):
    opened(browser, report[1])
    if "traversals" not in report[4]:
        assert not browser.find_elements("id", "walk-slider")
        return
    face, slider = "#walks .face", browser.find_element("id", "walk-slider")
    sheet = data_of(report[2])["sections"]["traversals"]
    before = picture(browser, face)
    slider.send_keys(Keys.HOME)
    first = picture(browser, face)
    slider.send_keys(Keys.END)
    assert len({before, first, picture(browser, face)}) == 3
    assert browser.find_element("id", "walk-value").text == f"+{max(sheet['values']):.2f} \u03c3"
    everything = "return [...document.querySelectorAll('#walks canvas')].map(c => c.toDataURL()).join()"
    for name in ("walk-kind", "walk-start"):
        seen = browser.execute_script(everything)
        browser.execute_script("[...document.querySelectorAll(`#${arguments[0]} button`)].at(-1).click()", name)
        assert (
            browser.execute_script(everything) != seen or len(sheet["kinds" if name == "walk-kind" else "starts"]) == 1
        )


def test_the_choices_of_the_map_change_it(report, browser):
    opened(browser, report[1])
    codes = data_of(report[2])["sections"]["map"]
    state = (
        "const p = document.getElementById('map-plot'); return JSON.stringify([p.data[0].x, p.data[0].marker.color])"
    )
    for name, options in (("map-method", codes["maps"]), ("map-colour", codes["colours"])):
        seen = browser.execute_script(state)
        browser.execute_script("[...document.querySelectorAll(`#${arguments[0]} button`)].at(-1).click()", name)
        assert (browser.execute_script(state) != seen) == (len(options) > 1)
    note = browser.execute_script("return document.getElementById('map-note').textContent")
    assert note == codes["maps"][-1]["note"]


# Parts ---------------------------------------------------------------------------------------------------------


def test_curves_join_a_term_with_its_metric():
    rows = [
        {"step": 1, "time": 0.0, "split": "train", "a/elbo": 1.0, "a/lost": "nan", "steps_per_second": 5.0},
        {"step": 2, "time": 0.0, "split": "train", "a/elbo": 2.0, "a/once": 1.0, "steps_per_second": 5.0},
        {"step": 2, "time": 0.0, "split": "validation", "elbo": 1.5},
    ]
    charts = curves.collect(rows)
    assert charts["elbo"] == {"train": ([1, 2], [1.0, 2.0]), "validation": ([2], [1.5])}
    assert set(charts) == {"elbo", "steps_per_second"}
    two = [{**row, "b/elbo": 0.0} for row in rows]
    assert {"a/elbo", "b/elbo"} <= set(curves.collect(two))


def test_words_from_outside_are_escaped():
    section = page.Section("Metrics", "<b>lead</b>", {"rows": []}, {}, {"text": "</script><script>"})
    absent = page.Absent("Map", "<i>no</i>")
    text = page.render("<title>", {"metrics": section, "map": absent}, "now")
    assert "<b>lead" not in text and "<i>no" not in text and "&lt;title&gt;" in text
    assert data_of(text)["sections"]["metrics"]["text"] == "</script><script>"


@pytest.mark.parametrize(("value", "word"), [(None, "-"), (12000, "12\u2009000"), (0.01234, "0.0123"), (3.0, "3")])
def test_numbers_are_written_for_people(value, word):
    assert page.number(value) == word
