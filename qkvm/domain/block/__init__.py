"""The images below a guest's disks: their nodes in QEMU, chains, statistics, and the jobs that change them."""
