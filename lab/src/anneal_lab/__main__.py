"""`python -m anneal_lab`."""

import sys

from anneal_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
