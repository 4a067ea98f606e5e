"""Download plans: a listing, a selection and the local state give an action for each file."""

from cxrprep.planning.build import LocalState, RecordedFile, make_plan
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.planning.plan_file import load_plan, save_plan

__all__ = [
    "Action",
    "Item",
    "LocalState",
    "Plan",
    "RecordedFile",
    "load_plan",
    "make_plan",
    "save_plan",
]
