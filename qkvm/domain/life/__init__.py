"""From start to shutdown: start, restore, create, stop, the job under way, the host's boot and halt."""
