"""Energies in closed form, of charges, volumes and nuclei."""
