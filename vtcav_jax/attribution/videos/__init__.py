"""Attribution maps of whole video sources: clips, maps on disk, temporal profiles."""
