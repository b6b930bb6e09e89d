"""What is kept of a domain's snapshots and checkpoints: files of JSON, a current one, parents."""
