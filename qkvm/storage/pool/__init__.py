"""Storage pools and their volumes.

A module imports only what is listed before it:

unfinished: volumes that are being made
content: bytes of volumes
vacancy: whether a block device is free to be used
lvm: LVM's programs
backend: what each type of pools does in its own way
folder, logical: the types
pool: a pool and its verbs
volume: what is in a pool
making: volumes made, changed and filled
"""
