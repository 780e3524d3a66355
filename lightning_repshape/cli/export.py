"""``export``: a trained model as files for other programs."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightning_repshape.cli.options import export_parser
from lightning_repshape.cli.plain import listed
from lightning_repshape.cli.predict import read_model
from lightning_repshape.errors import ConfigError
from lightning_repshape.export import export_model
from lightning_repshape.export.formats import CARD
from lightning_repshape.runs.folders import given_path


def run(words: list[str]) -> int:
    """Runs the command; returns 0."""
    options = export_parser().parse_args(words)
    formats = [name for name in listed(options.format) if name]
    model = read_model(options, "export")
    if options.to is None and model.origin.run is None:
        raise ConfigError("--to FOLDER says where to, since the checkpoint lies in no run's folder")
    target = given_path(options.to, "--to") if options.to is not None else Path(str(model.origin.run)) / "export"
    checks = export_model(model, target, formats, options.samples, options.trust)
    table = Table(box=None, pad_edge=False)
    table.add_column("file")
    table.add_column("size", justify="right")
    for name in checks[0].differences:
        table.add_column(name, justify="right")
    for check in checks:
        size = check.path.stat().st_size
        text = f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
        table.add_row(
            check.path.name, text, *(f"{value:.1e}" if value else "0" for value in check.differences.values())
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"largest differences from the original, on {checks[0].samples} {checks[0].of}")
    console.print(f"export: {target}, with {CARD}", soft_wrap=True)
    return 0
