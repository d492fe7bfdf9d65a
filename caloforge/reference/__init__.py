"""Geant4 showers that ship with the package and that no shipped model has seen."""
