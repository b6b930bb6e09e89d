"""UEFI firmware as templates see it: two flash chips, code and variables. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Flash(NamedTuple):
    """The files behind the two chips and their image formats.

    ``template`` is what a new store of variables is made from. ``secure`` lets the code alone, in SMM, write the
    variables, without which Secure Boot protects nothing.
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
        """Node name of the code."""
        return f"{self.code_format}-pflash0"

    @property
    def variables_node(self) -> str:
        """Node name of the variables; a snapshot of the machine holds them too."""
        return f"{self.variables_format}-pflash1"
