"""``python -m qkvm``: the same as the ``qkvm`` command."""

from __future__ import annotations

import sys

from qkvm.cli.main import main

sys.exit(main())
