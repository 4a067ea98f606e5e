"""Download plans: a listing, a selection and the local state give an action for each file."""
