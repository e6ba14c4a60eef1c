"""`python -m tl_experiments VERB`, the same as `tlx VERB`."""

import sys

from tl_experiments.cli.verbs import main

sys.exit(main())
