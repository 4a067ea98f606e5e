"""The verbs of cxrprep, one module each: the one place that joins rooms which do not know each other."""
