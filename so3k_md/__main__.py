"""python -m so3k_md."""

import sys

from so3k_md.cli import main

sys.exit(main())
