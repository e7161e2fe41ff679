"""What there is to save: the changes in the home, found by events and walks, and what of it is left out."""
