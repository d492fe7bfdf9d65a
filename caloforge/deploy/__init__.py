"""Models that run without caloforge: exported files, and what carries them to their users."""
