"""What is plugged into a guest, and what runs beside it.

A module imports only what is listed before it:

actual: what a guest consists of now
sidecar: programs beside QEMU
share, tpm: shared folders, and the TPM
nic: network cards
disk: disks
attach: devices of any kind that an XML describes
"""
