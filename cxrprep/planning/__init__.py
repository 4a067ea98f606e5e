"""What to do with each file of a release: a listing, a selection and the local state make a plan, a value."""

from cxrprep.planning.build import Held, Holdings, make_plan
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.planning.plan_file import load_plan, save_plan
from cxrprep.selection.filters import Choice, draw

__all__ = ["Action", "Choice", "Held", "Holdings", "Item", "Plan", "draw", "load_plan", "make_plan", "save_plan"]
