"""How much of the host a guest gets: vCPUs, memory, limits, pinning.

A module imports only what is listed before it:

group: the control group of a run
threads: QEMU's threads, lists of CPUs
cputime: CPU time of a domain and its vCPUs (cpu-stats, vcpuinfo)
tuned: changes of tuning in the record of a run
cpu: schedinfo
memory: memtune
io: blkiotune
numa: numatune
vcpucount: vcpucount
pins: the CPUs that threads may run on
pinning: vcpupin, emulatorpin, iothreadpin
place: apply all of these to a QEMU that starts
iothread: iothreadadd, iothreaddel, iothreadset
vcpu: setvcpus, setvcpu
balloonstats: statistics of memory under virsh's names
balloon: setmem, setmaxmem, dommemstat
"""
