"""Backups, and checkpoints, which they begin from.

A module imports only what is listed before it:

part: one disk of a backup
pull: a backup that somebody else reads
job: the backup that is under way
folder: backups into a folder
checkpoint: checkpoints
begin: backup jobs as virsh begins them
restore: a domain made from a folder
"""
