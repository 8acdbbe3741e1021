"""`python -m relay` is `veil`."""

from relay.cli import main

if __name__ == "__main__":
    main()
