"""The command line: options in, one verb of ``api``, results out."""
