"""Errors made for the person who reads them: what was wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class RepshapeError(Exception):
    """Base class of every error this package raises on purpose; the command line prints its message alone."""


class ConfigError(RepshapeError):
    """An option, a name or a combination of options that cannot work."""


class DataError(RepshapeError):
    """A data set that is missing, damaged, too small, or of another kind than its reader expects."""


class CheckpointError(RepshapeError):
    """A checkpoint that is missing, is none, or belongs to another model."""


class DivergenceError(RepshapeError):
    """Training produced a value that is not a finite number."""


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that a name could be meant as, nearest first; upper case is lower case."""
    by_lower = {candidate.lower(): candidate for candidate in reversed(list(candidates))}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=0.5)]


def did_you_mean(name: str, candidates: Iterable[str], limit: int = 3) -> str:
    """The end of an error message: ``"; did you mean 'a' or 'b'?"`` with the nearest candidates.

    ``"; there are: 'a', 'b', ..."`` where nothing is near, or an empty string where nothing exists.
    """
    known = list(dict.fromkeys(candidates))
    near = nearest(name, known, limit)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    if known:
        shown = ", ".join(repr(candidate) for candidate in known[:12])
        return f"; there are: {shown}{', ...' if len(known) > 12 else ''}"
    return ""
