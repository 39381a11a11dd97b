"""``python -m distill``, as launchers start the command line: ``accelerate launch -m distill``."""

import sys

from distill.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
