"""Models that ship with the package, one checkpoint folder each."""
