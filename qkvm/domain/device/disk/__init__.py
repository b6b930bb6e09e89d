"""Disks and drives of a guest.

A module imports only what is listed before it:

media: change the medium of a drive (change-media)
throttle: statistics, limits, size of a disk (domblkstat, blkdeviotune, blockresize)
throttlegroup: limits that several disks share (domthrottlegroupset)
plug: plug and unplug disks (attach-disk)
"""
