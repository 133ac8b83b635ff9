"""`python -m fastgw` is the command `fastgw`."""

import sys

from fastgw.cli.main import main

sys.exit(main())
