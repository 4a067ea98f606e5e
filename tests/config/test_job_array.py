"""``--shard auto/N``: which part of a job array this process is."""

from __future__ import annotations

import pytest

from cxrprep.config.job_array import parse_shard
from cxrprep.model import Shard


def slurm(task: int, first: int, last: int) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in (("ID", task), ("MIN", first), ("MAX", last))}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (slurm(1, 1, 16), Shard(1, 16)),
        (slurm(16, 1, 16), Shard(16, 16)),
        (slurm(0, 0, 15), Shard(1, 16)),
        (slurm(15, 0, 15), Shard(16, 16)),
        ({"JOB_COMPLETION_INDEX": "0"}, Shard(1, 16)),
        ({"JOB_COMPLETION_INDEX": "15"}, Shard(16, 16)),
    ],
)
def test_the_environment_says_where_counting_begins(environment: dict[str, str], shard: Shard) -> None:
    assert parse_shard("auto/16", environment) == shard
    assert parse_shard("3/16", environment) == Shard(3, 16)


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("auto/16", slurm(3, 3, 7)),
        ("auto/16", slurm(0, 0, 16)),
        ("auto/16", {}),
        ("auto/16", {"JOB_COMPLETION_INDEX": "16"}),
        ("auto", slurm(1, 1, 16)),
        ("auto/x", slurm(1, 1, 16)),
    ],
)
def test_what_it_does_not_say_is_not_guessed(text: str, environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"auto|exist"):
        parse_shard(text, environment)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SLURM_ARRAY_TASK_ID": "x"}, "SLURM_ARRAY_TASK_ID is 'x'"),
        (slurm(-1, 1, 16), "SLURM_ARRAY_TASK_ID is '-1'"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_MIN is not set"),
        ({"JOB_COMPLETION_INDEX": "\u0663"}, "JOB_COMPLETION_INDEX is '\u0663'"),
        # Another number beside it is not taken in its place.
        ({"SLURM_ARRAY_TASK_ID": "x", "JOB_COMPLETION_INDEX": "2"}, "SLURM_ARRAY_TASK_ID is 'x'"),
    ],
)
def test_a_variable_that_is_no_number_is_named_with_its_value(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_shard("auto/16", environment)
