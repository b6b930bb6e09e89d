"""Disk images, storage pools, install media, and the files that guests are saved and backed up in.

A module imports only what is listed before it:

image: disk images
pool: storage pools and their volumes
media: CD images, and what installs a guest
base: base images by name
stream, savefile: long streams into and out of files, and the file of a saved guest
backup: a folder of backups
"""
