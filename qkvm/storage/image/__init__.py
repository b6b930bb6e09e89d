"""Disk images: what they are is read here, strictly; what changes them is qemu-img.

A module imports only what is listed before it:

formats: what an image's first bytes say, for display
qcow2, foreign: headers of qcow2 images and of other makers', read strictly
qemuimg: qemu-img, within limits and without a network
image: images by their paths
partitions: the partition table in an image
held: images by fds that are held open
states: internal snapshots
"""
