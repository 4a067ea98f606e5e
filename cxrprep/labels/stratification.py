"""Stratification of patients over several observations at once: the iterative rule of Sechidis et al. (2011).

Own code, since ``iterative-stratification`` brings scikit-learn and SciPy (about 120 MB) for these lines, and takes the
order of rows into account: the same patients in another order would be divided otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def stratified(
    patients: Sequence[str], observed: Mapping[str, frozenset[str]], fractions: Sequence[float]
) -> dict[str, int]:
    """The part of each patient, so that each part has its fraction of the patients of every observation.

    The rarest observation that is left is divided first; each of its patients goes where most of them are lacking.

    Args:
        patients: Everyone, in an order that nothing but a seed and their ids decides: it breaks ties.
        observed: The patients that have each observation, by its name.
        fractions: The size of each part; they sum to 1.

    Returns:
        The index of a part for each patient.
    """
    has: dict[str, list[str]] = {patient: [] for patient in patients}
    for name in sorted(observed):
        for patient in observed[name]:
            has[patient].append(name)
    lacking = {name: [len(observed[name]) * fraction for fraction in fractions] for name in observed}
    room = [len(has) * fraction for fraction in fractions]
    left = {name: len(members) for name, members in observed.items() if members}
    placed: dict[str, int] = {}

    def place(patient: str, wanted: Sequence[float]) -> None:
        part = max((p for p in range(len(fractions)) if fractions[p] > 0), key=lambda p: (wanted[p], room[p], -p))
        placed[patient] = part
        room[part] -= 1
        for name in has[patient]:
            lacking[name][part] -= 1
            left[name] -= 1

    while rarest := min(
        (name for name, count in left.items() if count), key=lambda name: (left[name], name), default=""
    ):
        for patient in [p for p in patients if p not in placed and p in observed[rarest]]:
            place(patient, lacking[rarest])
    for patient in patients:
        if patient not in placed:
            place(patient, room)
    return placed
