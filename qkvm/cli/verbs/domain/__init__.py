"""Tables of verbs on domains, one for each module of qkvm.cli.domain that has verbs; none imports another.

backups, blockio, blockjobs, defining, describing, devices, disks, events, guest, jobs: constants
lifecycle, listing, monitor, saving, screen, snapshots, statistics, tuning, vcpus: constants
"""
