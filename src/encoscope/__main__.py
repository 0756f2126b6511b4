"""``python -m encoscope``: the command where no script of its name is on the path."""

from encoscope.cli import main

if __name__ == "__main__":
    main()
