"""Download plans: a listing, a selection and the local state give an action for each file."""

from cxrprep.planning.build import Held, Holdings, make_plan
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.planning.plan_file import load_plan, save_plan
from cxrprep.selection.filters import Choice, draw

__all__ = ["Action", "Choice", "Held", "Holdings", "Item", "Plan", "draw", "load_plan", "make_plan", "save_plan"]
