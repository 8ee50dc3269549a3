"""`python -m aftersend`."""

from aftersend.cli import main

if __name__ == "__main__":
    main()
