"""Every public name of version 0.1 is imported from where it stood.

``fixtures/public_names.json`` has the modules that the documentation, the examples and the configs name, and what is in
them. A name that is to go leaves that file, and the changelog says so.
"""

import importlib
import json
from pathlib import Path

import pytest

NAMES = json.loads((Path(__file__).parent / "fixtures" / "public_names.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", NAMES)
def test_names_are_imported_from_where_they_stood(module: str) -> None:
    found = importlib.import_module(module)
    missing = [name for name in NAMES[module] if not hasattr(found, name)]
    assert not missing, f"from {module} import {', '.join(missing)}"
