"""One file a platform: its protocol to our events and replies, and nothing else."""
