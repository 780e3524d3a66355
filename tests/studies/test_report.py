"""Reports as they are written, and what the check finds in them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from study_runs import PENALTY, Results, fill, records

from lightning_repshape.errors import ConfigError
from lightning_repshape.studies.check import check_report
from lightning_repshape.studies.formats import Table
from lightning_repshape.studies.latex import as_latex, escaped
from lightning_repshape.studies.report import tables_of, write_report
from lightning_repshape.studies.results import read_results


def test_the_files_of_a_report(results: Results, tmp_path: Path) -> None:
    fill(results)
    folder = tmp_path / "report"
    assert write_report(folder, [results.read()]) == folder / "report.html"
    rows = records(folder)
    assert len(rows) == 8
    row = rows["all", "penalty", "error"]
    assert float(row["mean"]) == pytest.approx(100 * np.mean(list(PENALTY.values())))
    assert (row["n"], row["seeds"], row["value"], row["published"]) == ("3", "0 1 2", "1", "2.0")
    assert (row["best_ours"], row["best_published"]) == ("true", "true")
    row = rows["few", "plain", "error"]
    assert (row["published"], row["failed_seeds"], row["ci_low"]) == ("8 to 12", "1", "")
    assert rows["few", "penalty", "error"]["published"] == "did not converge"

    text = (folder / "report.md").read_text(encoding="utf-8")
    for line in (line for line in text.splitlines() if line.startswith("|")):
        assert line.endswith("|")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    assert tables[0].splitlines()[0] == "| method | all images | paper | few images | paper |"
    assert tables[0].splitlines()[3] == (
        "| Penalty λ | **2.14 ± 0.16 (3)** | **2.00** | selection 2 of 3 | did not converge |"
    )
    assert "10.00 (1 of 3, 1 failed)" in text and "A note." in text and "&lt;nan> \\| at step 3" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Müller" in page and "<strong>2.14 ± 0.16 (3)</strong>" in page and "&lt;nan&gt;" in page
    before, script = page.split("<script>")
    for target in re.findall(r"""(?:src|href)\s*=\s*["']?([^"'>\s]+)""", before):
        assert target.startswith(("data:image/png;base64,", "#"))
    assert (
        not any(word in page for word in ("url(", "@import", "fetch(", "XMLHttp", "import(")) and "</script>" in script
    )
    assert not list(folder.glob(".*"))


def test_two_trainings_say_nothing_and_chance_is_no_win(results: Results, tmp_path: Path) -> None:
    def text_of() -> str:
        write_report(tmp_path / "report", [results.read()])
        page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
        assert page.count('<div class="card">') == 1 and "<strong>2.9" not in page
        return (tmp_path / "report/report.md").read_text(encoding="utf-8")

    for value, validation in (("0.1", 0.3), ("10", 0.5)):
        results.run("all/penalty", 0, 0.05, value=value, validation=validation)
    for seed, (plain, penalty) in enumerate([(0.02, 0.03), (0.04, 0.02)]):
        results.run("all/plain", seed, plain)
        results.run("all/penalty", seed, penalty, value="1", validation=0.2)
    text = text_of()
    assert "no, fewer than 3 common seeds against Plain" in text
    assert "An interval of the mean takes 3 trainings" in text and not re.search(r"\d\.\d+ to", text)
    results.run("all/plain", 2, 0.03)
    results.run("all/penalty", 2, 0.036, value="1")
    text = text_of()
    assert re.search(r"no, p = 0\.\d+ against Plain", text) and re.search(r"\d+\.\d+ to \d+\.\d+", text)


def test_budgets_are_marked(results: Results, tmp_path: Path) -> None:
    results.run("all/plain", 0, 0.02, epochs=0.3, size=500)
    results.run("few/plain", 0, 0.02)
    write_report(tmp_path / "report", [results.read()])
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "2.00 (1 of 3)¹ ²" in text
    assert "- ¹ 0.3 of the epochs" in text and "- ² at most 500 training images" in text
    row = records(tmp_path / "report")["all", "plain", "error"]
    assert (row["epochs"], row["train_size"]) == ("0.3", "500")


def test_the_check_finds_nothing_in_a_report_as_written(results: Results, tmp_path: Path) -> None:
    fill(results)
    write_report(tmp_path / "report", [results.read()])
    assert check_report(tmp_path / "report", results.folder) == []
    shutil.move(results.folder, tmp_path / "elsewhere")
    assert check_report(tmp_path / "report", tmp_path / "elsewhere") == []


def test_the_check_finds_what_was_changed(results: Results, tmp_path: Path) -> None:
    fill(results)
    report = tmp_path / "report"
    write_report(report, [results.read()])
    metrics = results.folder / "small/all/plain/seed-1/metrics.json"
    kept = metrics.read_text()
    metrics.write_text(kept.replace("0.0262", "0.0252"))
    problems = check_report(report, results.folder)
    assert any("plain/seed-1: metrics.json was changed" in problem for problem in problems)
    assert any("the report has 2.62" in problem and "2.52" in problem for problem in problems)
    metrics.write_text(kept)

    shutil.move(metrics.parent, tmp_path / "gone")
    assert check_report(report, results.folder) == ["run small/all/plain/seed-1 is missing"]
    shutil.move(tmp_path / "gone", metrics.parent)

    manifest = metrics.parent / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"finished"', '"killed"'))
    assert check_report(report, results.folder) == ["run small/all/plain/seed-1 is interrupted"]
    manifest.write_text(whole)

    table = report / "report.csv"
    text = table.read_text(encoding="utf-8")
    for name in ("mean", "std", "ci_low", "p_paired", "difference", "step_time_ratio"):
        value = records(report)["all", "penalty", "error"][name]
        assert value in text
        table.write_text(text.replace(value, repr(float(value) + 0.01)), encoding="utf-8")
        assert any(f"all/penalty/error: {name} is" in problem for problem in check_report(report, results.folder)), name
    # What nothing else is computed from is covered by the file's checksum.
    table.write_text(text.replace("true", "false"), encoding="utf-8")
    assert check_report(report, results.folder) == ["report.csv was changed after the report was written"]
    table.write_text("\n".join(text.splitlines()[:-1]) + "\n", encoding="utf-8")
    assert len(check_report(report, results.folder)) >= 1
    table.write_text(text, encoding="utf-8")

    file = report / "report.json"
    content = json.loads(file.read_text())
    content["numbers"][0]["value"] += 1
    file.write_text(json.dumps(content))
    problems = check_report(report, results.folder)
    assert any("seed 0: the report has" in problem for problem in problems)
    assert any("mean is" in problem for problem in problems)


def test_the_check_needs_a_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.json is missing"):
        check_report(tmp_path, tmp_path)


def test_a_new_report_takes_away_the_old_ones_pictures(results: Results, tmp_path: Path) -> None:
    fill(results)
    report = tmp_path / "report"
    write_report(report, [results.read()])
    assert (report / "small-error.png").is_file()
    (report / "mine.txt").write_text("stays")
    rows = [row.id for row in results.study.rows if row.column == "all"]
    write_report(report, read_results(results.folder, [results.study], rows))
    assert not (report / "small-error.png").exists() and (report / "small.png").is_file()
    assert (report / "mine.txt").is_file() and check_report(report, results.folder) == []


def test_latex_is_escaped_and_the_best_is_bold(results: Results) -> None:
    fill(results)
    text = as_latex("small_1: 100 % & more", tables_of(results.read()))
    assert text.startswith("% \\usepackage{booktabs}\n")
    assert r"\caption{small\_1: 100 \% \& more" in text
    assert (
        r"Penalty $\lambda$ & \textbf{2.14 $\pm$ 0.16 (3)} & \textbf{2.00} & selection 2 of 3 & did not converge \\"
        in text
    )
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") > 0
    for body in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL):
        counts = {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line.endswith(r"\\")}
        assert len(counts) == 1
    signs = r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\_\{e\} \textless{}1 é"
    assert escaped("a\\b~c^d_{e}\n<1 é") == signs


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_compiles_and_stays_on_the_page(results: Results, tmp_path: Path) -> None:
    fill(results)
    signs = "[\\~^_{}&%$#] <> | \" ' − – — × ≥ → · ∞ … “” ⁰₁ αλΔ ε ′ ½ é"
    headers = ["method", *(name for k in range(6) for name in (f"{signs} column {k} with a long name", "paper"))]
    rows = [[f"[{k}] {signs}", *["86.71 ± 4.34 (2 of 5)⁵", "31.62 ± 0.07"] * 6] for k in range(10)]
    own = as_latex("small_1: 100 % & more", tables_of(results.read())) + as_latex(signs, [Table(headers, rows, 1)])
    rules = r"\newcommand\toprule{\hline}\newcommand\midrule{\hline}\newcommand\bottomrule{\hline}"
    styles = Path(tmp_path, "booktabs.sty")
    if not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).stdout:
        styles.write_text(rules)  # which is no part of the smallest TeX
    begin, end = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n", "\\end{document}\n"
    (tmp_path / "t.tex").write_text(begin + own + end, encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0 and (tmp_path / "t.pdf").is_file(), done.stdout[-2000:]
    assert not re.findall(r"(?:Overfull|Float too large|LaTeX Warning).*", done.stdout)
    assert "(6 of 6)" in own and own.count("86.71") == 60
