"""What is plugged into a guest and what runs beside it: NICs, disks, shares, TPM."""
