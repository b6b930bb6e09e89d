"""Save a guest's state to a file, dump it, restore it, and copy it.

A module imports only what is listed before it:

job: the job under way, in the record: save, dump, restore
pump: a pipe between QEMU and a file
migration: QEMU's migration into a stream or file and out of it
saved: show and change the description in a save file
save: save, managedsave
dump: dump the guest's memory
bring_back: start QEMU with a saved guest
copy: clones, and the templates that instant clones begin from
"""
