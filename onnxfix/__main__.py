"""`python -m onnxfix`: the command line of the Python that runs it."""

import sys

from onnxfix.cli import main

if __name__ == "__main__":
    sys.exit(main())
