"""What the agent in the guest does: it is asked, freezes file systems, sets clock, users and power."""
