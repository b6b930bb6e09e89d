"""The machine: what it has, what it can do, and how it is made to sleep.

A module imports only what is listed before it:

sysfs: what the kernel tells in /proc and /sys
accel: which accelerator there is
cpu: the CPUs, and how they have spent their time
numa: NUMA cells and their memory
node: the machine in eight numbers
placement: start a program on certain CPUs, with memory of certain nodes
ksm: memory that guests have in common
smbios, firmware: what the firmware tells, and UEFI builds for guests
suspend: sleep
"""
