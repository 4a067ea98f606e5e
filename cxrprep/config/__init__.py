"""Configuration: the schema of a job file, and the precedence of files, variables and options."""
