"""The verbs, wired: the one place that joins rooms which do not know each other."""
