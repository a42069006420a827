"""Builds the Graph of atoms, without a model: pairs, images, bonds, groups, charges, cells."""
