"""`python -m fastgen_course`: the command line without an installed script."""

import sys

from fastgen_course.cli import main

if __name__ == "__main__":
    sys.exit(main())
