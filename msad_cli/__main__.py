"""`python -m msad_cli` (and `torchrun -m msad_cli`) is `msad`."""

from msad_cli.cli.app import main

if __name__ == "__main__":
    main()
