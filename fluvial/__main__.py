"""``python -m fluvial``: the same as the ``fluvial`` command."""

import sys

from fluvial.cli import main

sys.exit(main())
