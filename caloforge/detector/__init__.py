"""What a calorimeter is made of: materials, layers, the readout mesh and their physics numbers."""
