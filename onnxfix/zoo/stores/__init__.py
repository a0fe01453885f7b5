"""Where zoos and their migrations lie: on this machine's disk, or anywhere that fsspec reaches."""
