"""``python -m cxrprep``, for where the program is not on the path."""

from cxrprep.cli.app import main

if __name__ == "__main__":
    main()
