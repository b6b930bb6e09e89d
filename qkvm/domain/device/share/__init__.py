"""Shared folders.

A module imports only what is listed before it:

serve: served to the guest
plug: plugged and unplugged
"""
