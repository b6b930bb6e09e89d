"""Clones of domains, and the templates that instant clones begin from.

A module imports only what is listed before it:

identity: what tells a copy from its original: ids, addresses, the cloud-init seed
unfinished: clones that are being made, undone where their maker was killed
disks: the disks of a clone
clone: clones of a domain that is off
template: stored templates: list, check, delete
pages: the memory of a template, which its clones share
renewal: give a running clone its own name and ids, by its agent
freeze: make a template of a running domain
instant: clones of a template
"""
