"""Download plans: a listing, a selection and the local state give an action for each file."""

from cxrprep.planning.build import LocalState, RecordedFile, make_plan
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.planning.plan_file import load_plan, save_plan
from cxrprep.selection.filters import SelectionFilter, sample_ids

__all__ = [
    "Action",
    "Item",
    "LocalState",
    "Plan",
    "RecordedFile",
    "SelectionFilter",
    "load_plan",
    "make_plan",
    "sample_ids",
    "save_plan",
]
