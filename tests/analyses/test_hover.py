"""Maps of samples to hover over."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from analysis_data import DictData, clusters, inputs
from torch.utils.data import DataLoader

from lightning_repshape.analyses.hover import check_bokeh, thumbnails_of, write_maps
from lightning_repshape.analyses.page import write_page
from lightning_repshape.callbacks import LDAEigenvalues, PrincipalComponents
from lightning_repshape.errors import ConfigError

EVIL = "</script><img src=x onerror=alert(1)>"


def test_without_bokeh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.plotting", None)
    with pytest.raises(ConfigError, match=r"--interactive needs Bokeh.*pip install bokeh"):
        check_bokeh()


def test_thumbnails_of_images_of_this_and_of_other_projects() -> None:
    raw = SimpleNamespace(images=lambda split, rows: torch.zeros(len(rows), 8, 8, 1, dtype=torch.uint8))
    own: Any = SimpleNamespace(datamodule=raw)
    found = thumbnails_of(own, (0, 1))("test", torch.arange(3))
    assert len(found) == 3 and found[0].startswith("data:image/png;base64,")
    other: Any = SimpleNamespace(
        datamodule=None, train_dataloader=DataLoader(DictData(6, 0)), val_dataloaders=None, test_dataloaders=None,
        callbacks=[], lightning_module=None, world_size=1, global_rank=0,
    )  # fmt: skip
    colour = thumbnails_of(other, ("image", "label"))("train", torch.tensor([0, 5]))
    assert len(colour) == 2 and colour[1].startswith("data:image/jpeg;base64,")
    assert thumbnails_of(other, ("label", "label"))("train", torch.tensor([0])) == [""]


def test_a_map_holds_all_that_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    outcomes = [one.run(inputs(class_names=["a", "b", EVIL])) for one in (LDAEigenvalues(), PrincipalComponents())]
    path = write_maps(
        tmp_path / "points.html", EVIL, outcomes, lambda split, rows: ["data:image/png;base64,"] * len(rows)
    )
    assert path is not None
    text = path.read_text(encoding="utf-8")
    assert "Principal components: 60 test samples" in text and len(text) < 2_000_000
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text.split("<script", 1)[0]) and EVIL not in text
    assert not re.search(r"<script[^>]* src=", text)
    page = write_page(tmp_path / "index.html", "", [], outcomes, {}, path).read_text(encoding="utf-8")
    assert 'href="points.html"' in page
    assert write_maps(tmp_path / "none.html", "", outcomes[:1], None) is None and not (tmp_path / "none.html").exists()


@pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("chromedriver"), reason="there is no browser")
def test_a_map_in_a_browser(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    webdriver = pytest.importorskip("selenium.webdriver")
    outcomes = [PrincipalComponents().run(inputs(class_names=["a", "b", EVIL]))]
    path = write_maps(tmp_path / "points.html", "a", outcomes, None)
    assert path is not None and len(clusters().labels)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(flag)
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(path.as_uri())
        find = "const seen = [];const walk = root => {for (const one of root.querySelectorAll('*')) {seen.push(one);"
        find += "if (one.shadowRoot) walk(one.shadowRoot);}};walk(document);"
        script = find + "return seen.filter(one => one.tagName === 'CANVAS').map(one => one.clientWidth)"
        assert any(width > 400 for width in browser.execute_script(script))
        # to where a sample of the class with markup in its name lies
        place = browser.execute_script(
            "const view = Object.values(Bokeh.index)[0] ?? Bokeh.index.roots[0];"
            "const plot = [...view.child_views][0], renderers = plot.model.renderers;"
            "const data = renderers[renderers.length - 1].data_source.data;"
            "const x = plot.frame.x_scale.compute(data.x[0]), y = plot.frame.y_scale.compute(data.y[0]);"
            "const box = plot.canvas_view.el.getBoundingClientRect();"
            "return [box.left + x, box.top + y]"
        )
        actions = webdriver.ActionChains(browser)
        actions.w3c_actions.pointer_action.move_to_location(*map(round, place))
        actions.perform()
        texts = browser.execute_script(find + "return seen.map(one => one.shadowRoot ? '' : one.textContent)")
        assert any(EVIL in text and "sample" in text for text in texts), "the tooltip shows a name as it is"
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    finally:
        browser.quit()
