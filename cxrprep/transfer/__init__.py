"""Transfer: the files of a plan fetched, resumed, verified and put in place."""
