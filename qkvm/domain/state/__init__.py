"""The state of a guest, out of QEMU and into it.

A module imports only what is listed before it:

job: what the record says of a job
pump: between QEMU and a file
migration: QEMU's part
saved: what lies in a file
save, dump: into one
bring_back: out of it
"""
