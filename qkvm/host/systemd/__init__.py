"""systemd, where it is the host's init: scopes of guests, and its list of machines.

A module imports only what is listed before it:

limits: limits of a control group as properties of a unit
unit: scopes
machine: the list of machines
"""
