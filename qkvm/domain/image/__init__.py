"""Which images are needed by whom, and the firmware of a domain with its store of variables."""
