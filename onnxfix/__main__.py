"""`python -m onnxfix`: the command line of the Python that runs it."""

from onnxfix.cli import run

if __name__ == "__main__":
    run()
