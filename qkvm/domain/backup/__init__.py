"""Backups into folders, backup jobs, checkpoints, and domains made from backups."""
