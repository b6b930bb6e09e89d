"""Folders of the host that a guest shares, by 9p or virtiofs.

A module imports only what is listed before it:

serve: check and open folders, start virtiofsd
plug: plug and unplug them
"""
