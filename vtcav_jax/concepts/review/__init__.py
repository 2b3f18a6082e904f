"""Review page on which a person accepts or rejects concept clips."""
