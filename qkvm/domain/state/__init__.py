"""The state of a guest out of QEMU and into it: jobs, migration, saved guests, dumps."""
