"""Run folders: their names and files; who reads one needs no Lightning."""

from lightning_repshape.runs.files import plain_number, read_json, write_json, written_atomically
from lightning_repshape.runs.folders import (
    CLAIM,
    CONFIG,
    MANIFEST,
    METRICS,
    checkpoint_folder,
    claim_folder,
    find_checkpoint,
    folder_name,
    is_run_folder,
    make_folder,
    run_of_checkpoint,
)

__all__ = [
    "CLAIM",
    "CONFIG",
    "MANIFEST",
    "METRICS",
    "checkpoint_folder",
    "claim_folder",
    "find_checkpoint",
    "folder_name",
    "is_run_folder",
    "make_folder",
    "plain_number",
    "read_json",
    "run_of_checkpoint",
    "write_json",
    "written_atomically",
]
