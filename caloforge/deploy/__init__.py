"""Where a model is used: inside Geant4's event loop."""
