"""Models where they are used: export, inside Geant4, in C++ and in a browser."""
