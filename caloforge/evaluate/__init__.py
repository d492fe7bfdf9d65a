"""Validation against Geant4: observables, distances beside their floor, figures and a report."""
