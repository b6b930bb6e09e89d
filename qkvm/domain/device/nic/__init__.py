"""NICs (network cards) of a guest.

A module imports only what is listed before it:

passt: user networking by passt
port: the NICs on a network (net-port-list)
status: list and find NICs (domiflist, domifstat)
guard: isolation, and filters of what the guest may send
opening: make taps and macvtaps for QEMU
tune: limits of bandwidth (domiftune)
remains: remove what outlives QEMU
update: change a NIC (update-device, domif-setlink)
plug: plug and unplug NICs (attach-interface)
"""
