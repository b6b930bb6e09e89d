"""Back domains up, and make checkpoints for incremental backups.

A module imports only what is listed before it:

part: one disk of a backup: its image, QEMU's commands for it
pull: serve a backup over NBD for others to read
job: the backup under way: begin, wait, cancel, end
folder: qkvm backup: full and incremental backups into a folder
checkpoint: make, delete, redefine checkpoints
begin: virsh backup-begin
restore: make a domain from a backup in a folder
"""
