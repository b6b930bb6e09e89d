"""CD images, and what installs a guest.

A module imports only what is listed before it:

iso: CD images, read and made
installtree: kernel and initrd of a distribution
osinfo: the database of operating systems, and what a medium is of
seed: the seed of a cloud image
"""
