"""`python -m aiprod_ops` is the command `aiprod-ops`."""

from aiprod_ops.cli import main

if __name__ == "__main__":
    main()
