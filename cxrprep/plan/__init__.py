"""What to do with each file of a release: a listing, a selection and the local state make a plan, a value."""

from cxrprep.plan.choice import Choice, draw
from cxrprep.plan.items import Action, Item, Plan
from cxrprep.plan.make import Held, Holdings, make_plan
from cxrprep.plan.saved import load_plan, save_plan

__all__ = ["Action", "Choice", "Held", "Holdings", "Item", "Plan", "draw", "load_plan", "make_plan", "save_plan"]
