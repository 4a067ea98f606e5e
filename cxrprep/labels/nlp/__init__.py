"""The report labeler: from a radiology report to the CheXpert observations, with the evidence for each.

report -> ``sections`` -> ``sentences`` -> mentions (``phrases``, ``rules``) -> ``scope`` -> ``labeler``, which
does one report; ``collection`` a whole collection read by ``reading``. What it knows stands in ``data/*.toml``.
"""
