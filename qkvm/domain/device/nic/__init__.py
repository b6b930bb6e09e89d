"""Network cards.

A module imports only what is listed before it:

passt: user networking by passt
port: the NICs on a network
status: which there are
guard: what the guest may send by one
opening: its tap, its queues
tune: limits of its bandwidth
remains: what does not end with QEMU
update: changed while the guest runs
plug: plugged and unplugged
"""
