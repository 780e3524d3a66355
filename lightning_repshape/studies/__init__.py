"""Studies: the tables of the papers, and of users, as data that one command trains and reports.

A study is a table: columns (scenarios), methods, and one or several figures for each cell. :mod:`.rows` has its types,
:mod:`.reading` reads it from YAML, :mod:`.calls` turns a row into a call of ``fit``. :mod:`.jobs` names the trainings
that a cell consists of and what state each is in, :mod:`.executors` trains them, :mod:`.runner` decides what is next,
:mod:`.live` shows it. :mod:`.results` reads run folders into :mod:`.cells`, whose numbers :mod:`.values` computes;
:mod:`.report` writes them down, as :mod:`.formats` and :mod:`.records` say, and :mod:`.check` finds them again.
"""

from lightning_repshape.studies.calls import about, digest, import_beside, row_words, take_row
from lightning_repshape.studies.jobs import Budget, Cell, Job, Run, open_results, read_job, read_run, validation_figure
from lightning_repshape.studies.reading import filtered, find_row, find_studies, read_studies, shipped
from lightning_repshape.studies.rows import Figure, Published, Row, Selection, Study, Variant, as_word

__all__ = [
    "Budget",
    "Cell",
    "Figure",
    "Job",
    "Published",
    "Row",
    "Run",
    "Selection",
    "Study",
    "Variant",
    "about",
    "as_word",
    "digest",
    "filtered",
    "find_row",
    "find_studies",
    "import_beside",
    "open_results",
    "read_job",
    "read_run",
    "read_studies",
    "row_words",
    "shipped",
    "take_row",
    "validation_figure",
]
