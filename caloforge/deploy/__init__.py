"""Models where they are used: exported, inside Geant4, in C++ and in a browser."""
