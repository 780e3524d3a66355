"""Names and titles that are markup or formulas: pages and tables show them, and do nothing with them."""

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from rich.console import Console
from study_runs import TWO_METHODS, Results, fill, records

from lightning_repshape.analyses.error_counts import ErrorCount, write_counts
from lightning_repshape.analyses.page import write_page
from lightning_repshape.analyses.result import AnalysisResult, Outcome
from lightning_repshape.runs.files import csv_text, from_csv
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.summary import ResultTable
from lightning_repshape.studies.check import check_report
from lightning_repshape.studies.formats import Heading, Paragraph, Picture, Points, Table, as_html, as_markdown
from lightning_repshape.studies.reading import read_studies
from lightning_repshape.studies.report import write_report

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:alert(1))"
KINDS = set(
    "html head meta title style script body h1 h2 h3 p a nav main section div footer table thead tbody tr".split()
)
KINDS |= set("table thead tbody tr th td strong figure figcaption img ul li details summary pre".split())
ATTRIBUTES = set("class id href lang charset name content alt src http-equiv aria-label".split())


class Tags(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.kinds.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.kinds[-1:] == ["script"] and data.strip():
            self.scripts.append(data)


def harmless(page: str) -> bool:
    """Whether a page has no tags but its own kinds, and nothing in them that loads or runs but its own script."""
    seen = Tags()
    seen.feed(page)
    links = [value or "" for name, value in seen.attributes if name in ("href", "src")]
    own = base64.b64encode(hashlib.sha256(seen.scripts[0].encode()).digest()).decode()
    return (
        set(seen.kinds) <= KINDS
        and {name for name, _ in seen.attributes} <= ATTRIBUTES
        and seen.kinds.count("script") == 1
        and f"script-src 'sha256-{own}'" in page
        and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    )


def test_the_page_of_analyses(tmp_path: Path) -> None:
    figure = tmp_path / "a'b.png"
    figure.write_bytes(b"png")
    found = AnalysisResult(scalars={EVIL: 1.0}, tables={EVIL: [{EVIL: EVIL, "number": 1}]}, notes=(EVIL,))
    outcomes = [Outcome(EVIL, EVIL, found, figures=(figure,)), Outcome(EVIL, EVIL, None, failure=EVIL)]
    page = write_page(tmp_path / "page.html", EVIL, [EVIL], outcomes, {EVIL: [EVIL]}).read_text(encoding="utf-8")
    assert harmless(page)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 14


def test_a_report_as_html_and_as_markdown(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    parts = [Heading(EVIL, 2, EVIL), Paragraph(EVIL), Points([EVIL]), Picture("a.png", EVIL)]
    parts.append(Table([EVIL, "n"], [[EVIL, EVIL]], 1))
    assert harmless(as_html(EVIL, EVIL, parts, tmp_path))
    text = as_markdown(EVIL, EVIL, parts)
    assert "<" not in text and not re.search(r"(?<!\!)\[[^\]]*\]\((?!a\.png)", text)
    assert text.count("](") == 1 and "](a.png)" in text


TEXTS = ["=1+1", "+cat", "-cat", "@SUM(A1)", "\t=1", "'=1", "''=1", "'cat", "cat", "", "-1.5", "+3e4", "1 = 1", "\r=x"]


def test_cells_that_are_no_formulas() -> None:
    for text in TEXTS:
        cell = csv_text(text)
        assert from_csv(cell) == text
        assert not cell.startswith(("=", "@", "\t", "\r")) and (cell[:1] not in "+-" or not cell or float(cell))
    assert [csv_text(text) for text in ("cat", "'cat", "-1.5", "nan")] == ["cat", "'cat", "-1.5", "nan"]


def test_predictions(tmp_path: Path) -> None:
    data = SimpleNamespace(class_names=("=1+1", "cat"), sample_name=lambda stage, index: f"@{index}.png")
    trainer: Any = SimpleNamespace(
        world_size=1, is_global_zero=True, datamodule=data, callbacks=[], log_dir=str(tmp_path), default_root_dir=""
    )
    writer = PredictionWriter()
    writer.on_predict_start(trainer, LightningModule())
    batch = {"probability": torch.tensor([[0.75, 0.25], [0.0, 1.0]]), "target": torch.tensor([1, 0])}
    writer.write_on_batch_end(trainer, LightningModule(), batch, None, None, 0, 0)
    writer.on_predict_epoch_end(trainer, LightningModule())
    rows = list(csv.reader(io.StringIO((tmp_path / "predictions.csv").read_text(encoding="utf-8"))))
    assert rows[1:] == [["'@0.png", "'=1+1", "0.750000", "cat"], ["'@1.png", "cat", "1.000000", "'=1+1"]]


def test_error_counts(tmp_path: Path) -> None:
    write_counts([ErrorCount("=set", "@noise", 1, 2, 4)], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "'=set,'@noise,1,2,4,0.500000"


def test_a_report_whose_names_are_formulas_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    text = TWO_METHODS.replace("  error: {metric", '  "=error": {metric').replace("/error", "/=error")
    text = text.replace("/=error, scale", "/error, scale").replace("val/=error", "val/error")
    file.write_text(text.replace("Two methods", "<b>&</b>"), encoding="utf-8")
    (tmp_path / "studies").mkdir()
    results = Results(tmp_path / "studies", read_studies(file)[0])
    fill(results)
    page = write_report(tmp_path / "report", [results.read()]).read_text(encoding="utf-8")
    assert harmless(page)
    assert {figure for _, _, figure in records(tmp_path / "report")} == {"'=error", "loss"}
    assert check_report(tmp_path / "report", tmp_path / "studies") == []


def test_a_path_with_markup_is_printed_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a[" / "b]"  # together "[/b]", which ends what was never begun
    folder.mkdir(parents=True)
    writer = PredictionWriter()
    writer.path = str(folder / "predictions.csv")
    out = io.StringIO()
    trainer: Any = SimpleNamespace(is_global_zero=True, callbacks=[writer])
    table = ResultTable(Console(file=out, width=500))
    table.on_predict_end(trainer, LightningModule())
    table.teardown(trainer, LightningModule(), "predict")
    assert out.getvalue() == f"predictions: {writer.path}\n"
