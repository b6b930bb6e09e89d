"""Verbs on domains: each does what the table of the same name in cli/verbs/domain says.

A module imports only what is listed before it:

listing, statistics, events: verbs that look
screen: consoles and screens
lifecycle, defining, describing: domains themselves
devices: NICs and devices that are described in a file
diskoptions, disks: disks
blockio, blockjobs: how disks are used, and jobs on them
vcpus, tuning: CPUs, and what a domain may take of its host
saving, jobs, snapshots, backups: saved guests, what is under way, copies of disks
monitor, guest: QEMU's words and the agent's
"""
