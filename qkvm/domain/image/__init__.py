"""Firmware of a domain, and which images domains and snapshots need.

A module imports only what is listed before it:

firmware: choose a domain's UEFI build, make its store of variables
needs: list who needs an image, refuse to destroy one that is needed
linked: disks that disks of other domains are based on
nvram: remove the store of variables of a domain that is undefined
"""
