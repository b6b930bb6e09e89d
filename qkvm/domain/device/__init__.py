"""A guest's devices: NICs, disks, shared folders, TPM, vsock, credentials; and programs beside QEMU for them.

A module imports only what is listed before it:

actual: the present definition of a running guest
sidecar: start and end programs beside QEMU: swtpm, virtiofsd, passt
share: shared folders
tpm, vsock: the TPM, and the socket between host and guest
credential: what the guest's systemd reads at boot
nic: NICs
disk: disks, media, limits of their I/O
attach: attach-device, detach-device, update-device
"""
