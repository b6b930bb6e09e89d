"""Disks.

A module imports only what is listed before it:

media: the medium of a drive
throttle, throttlegroup: limits of I/O
plug: plugged and unplugged
"""
