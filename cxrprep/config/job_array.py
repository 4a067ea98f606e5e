"""Part of a job array that this process is, from the variables that Slurm and Kubernetes set: ``--shard auto/16``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cxrprep.model import Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

_AUTO: Final = "auto"


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """The shard that ``3/16`` or ``auto/16`` names. Raises ``ValueError``.

    An indexed job of Kubernetes counts from 0; a Slurm array as its own limits say. Where they do not say it, as when
    some tasks of an array are run again, nothing is guessed: a wrong guess would leave a part undone, with exit code 0.
    """
    index, _, count = text.partition("/")
    if index.strip() != _AUTO:
        return Shard.parse(text)
    if not count.strip().isdecimal():
        raise ValueError(f"{text!r} does not say how many parts there are; write it as auto/16")
    return Shard(_index(os.environ if environment is None else environment, int(count)), int(count))


def _index(environment: Mapping[str, str], count: int) -> int:
    """The part of this process, counted from 1."""
    if environment.get("SLURM_ARRAY_TASK_ID"):
        task, first, last = (_number(environment, f"SLURM_ARRAY_TASK_{name}", count) for name in ("ID", "MIN", "MAX"))
        from_zero, from_one = first == 0 and last < count, first > 0 and last == count
        if from_zero == from_one:
            raise ValueError(
                f"auto/{count}: an array of {first}-{last} does not say whether it counts from 0 or from 1; write "
                f"--array=1-{count} or --array=0-{count - 1}, or the part itself, such as 3/{count}"
            )
        return task + from_zero
    if environment.get("JOB_COMPLETION_INDEX"):
        return _number(environment, "JOB_COMPLETION_INDEX", count) + 1
    raise ValueError(
        f"auto/{count}: this is no task of an array: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"
    )


def _number(environment: Mapping[str, str], name: str, count: int) -> int:
    value = environment.get(name, "")
    if not (value.isascii() and value.isdecimal()):
        found = f"is {value!r}, which is no number" if value else "is not set"
        raise ValueError(f"auto/{count}: {name} {found}; write the part itself, such as 3/{count}")
    return int(value)
