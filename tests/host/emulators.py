"""QEMUs with other machine types than the one that is here."""

from __future__ import annotations

from tests.otherqemu import Other

NEWER = Other(newest=(("q35", "pc-q35-99.1"), ("pc", "pc-i440fx-99.1")))
