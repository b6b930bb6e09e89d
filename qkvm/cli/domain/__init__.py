"""Verbs on domains: each one implements the row of the same name in cli/verbs/domain.

A module imports only what is listed before it:

listing, statistics, events: show domains and their events
screen: consoles and screens
lifecycle, defining, describing: start, stop, define and describe domains
devices: NICs, and devices that a file describes
diskoptions, disks: disks
blockio, blockjobs: I/O of disks, and block jobs
vcpus, tuning: vCPUs, and limits on the host's resources
saving, jobs, snapshots, backups: saved guests, running jobs, copies of disks
monitor, guest: raw QMP commands, and the guest agent
"""
