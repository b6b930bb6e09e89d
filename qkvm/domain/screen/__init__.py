"""How a person gets at a guest.

A module imports only what is listed before it:

console: its serial lines
display: its screen, and its keyboard
keys: names of keys
taint, monitor: QEMU's own monitor, and the mark that it leaves
"""
