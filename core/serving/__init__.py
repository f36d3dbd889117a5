"""Exported files behind HTTP: limits, batches of requests, files that are replaced while they are served."""
