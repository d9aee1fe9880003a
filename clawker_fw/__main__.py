"""`python -m clawker_fw`."""

from clawker_fw.cli import main

if __name__ == "__main__":
    main()
