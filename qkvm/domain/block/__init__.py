"""The images below a guest's disks, and the jobs that change them.

A module imports only what is listed before it:

disk: which disks there are
stats, use: how much they do, and who else has them open
nodes: QEMU's block nodes
chain: an image and what it is based on
offline: the images of a domain that does not run, opened in a QEMU of their own
ending: how a job has ended, and what follows
job: jobs: listed, waited for, aborted
commit, copy, pull: one kind of jobs each
"""
