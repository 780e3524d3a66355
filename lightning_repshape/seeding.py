"""Keyed randomness: every random draw is a function of a key such as (seed, epoch, rank), never of a stream's state.

A resumed run therefore needs no saved generator state: the same key gives the same numbers.
"""

import hashlib
import os

import torch


def key_to_seed(*key: int | str) -> int:
    """Hashes a key to a seed in [0, 2**63) that is the same on every machine and in every process.

    Args:
        *key: Integers and strings, such as ``("shuffle", seed, epoch, rank)``. Start with a word that names the
            purpose, so that two purposes with the same numbers draw independently.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator whose numbers depend on the key (see :func:`key_to_seed`) alone.

    On the CPU, the default, they are the same on every machine.
    """
    return torch.Generator(device=device).manual_seed(key_to_seed(*key))


def global_seed(default: int = 0) -> int:
    """The run's seed, as ``seed_everything`` left it in the environment variable ``PL_GLOBAL_SEED``, or the default."""
    value = os.environ.get("PL_GLOBAL_SEED", "")
    return int(value) if value.lstrip("-").isdecimal() else default
