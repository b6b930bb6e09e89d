"""A run of a domain, from QEMU's start to its end.

A module imports only what is listed before it:

arrival: a QEMU that was started, until it is up
beside: the programs beside it
pin: the machine type, pinned at the first start
vncport: where its VNC server listens
release: what does not end with it
bring_up: a run brought up, or nothing left of it
preview, trial: the same, shown and tried
forget: a domain that is no more
end: a run ended
"""
