"""A Video-TCAV experiment: configuration, plan, execution and results."""
