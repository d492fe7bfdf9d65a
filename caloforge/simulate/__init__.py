"""Showers from first principles: real Geant4 or a parametrisation, in one or many processes."""
