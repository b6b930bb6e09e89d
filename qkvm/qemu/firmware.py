"""UEFI firmware as templates see it: two flash chips, code and variables. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Flash(NamedTuple):
    """The files of the two chips, and their image formats.

    A new file of variables is made from ``template``. With ``secure`` only the firmware's code, in SMM, can write
    the variables: without that Secure Boot protects nothing.
    """

    code: str
    code_format: str
    variables: str
    variables_format: str
    template: str
    template_format: str
    secure: bool

    @property
    def code_node(self) -> str:
        """Return the node name of the code."""
        return f"{self.code_format}-pflash0"

    @property
    def variables_node(self) -> str:
        """Return the node name of the variables; snapshots of the machine include that node."""
        return f"{self.variables_format}-pflash1"
