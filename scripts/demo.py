"""recon demo: networks trained on digits, recovered and rebuilt.  python scripts/demo.py --help"""

import sys

from recon.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
