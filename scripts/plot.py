"""recon plot: figures and claims again from the committed rows.  python scripts/plot.py --help"""

import sys

from recon.cli import main

if __name__ == "__main__":
    sys.exit(main(["plot", *sys.argv[1:]]))
