"""A run of a domain brought up, and ended: all that is around QEMU's process."""
