"""The page on which people accept or reject concept clips."""
