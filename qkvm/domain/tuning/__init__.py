"""How much of the host a guest gets.

A module imports only what is listed before it:

group: the control group of a run
threads, cputime: QEMU's threads and the time that they take
tuned: what has been changed since the start
cpu, memory, io, numa: limits and shares of each
pinning: which thread runs on which CPU
place: all of that for a QEMU that starts
iothread: iothreads
vcpuseen, vcpu: vCPUs, and whether the guest has taken them
balloonstats, balloon: its memory
"""
