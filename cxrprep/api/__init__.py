"""The verbs of cxrprep, one module each: the only package that joins packages which do not import each other."""
