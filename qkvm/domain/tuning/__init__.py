"""How much of the host a guest has: vCPUs, memory, iothreads; its control group, pins, limits and nodes."""
