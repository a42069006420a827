"""From atoms to their Graph, before any model sees them: pairs, images, bonds, groups, charges, cells."""
