"""recon run NAME: an experiment.  python scripts/run.py --help"""

import sys

from recon.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
