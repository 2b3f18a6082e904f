"""Scores of explanation methods on synthetic worlds, where the cause of each answer is known."""
