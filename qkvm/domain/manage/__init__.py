"""What needs all of the above: install, undefine, rename, describe, upgrades, volumes and pools in use, gc."""
