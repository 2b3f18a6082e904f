"""Accuracy of a network on labelled videos: predictions over several views, measures with intervals, confusions."""
