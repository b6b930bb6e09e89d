"""The images of a guest's disks, and the block jobs that change them.

A module imports only what is listed before it:

disk: list and find disks (domblklist)
stats: statistics of disks (domstats --block, domblkstat)
use: which domain uses an image
nodes: open and close QEMU's block nodes
chain: an image and those that it is based on
offline: open the images of a domain that does not run
job: begin, wait for, pivot, abort block jobs
merge: blockcommit, blockpull
copy: blockcopy
"""
