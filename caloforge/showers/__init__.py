"""Showers in memory and on disk: the container, the file dialects and the training streams."""
