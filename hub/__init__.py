"""What the hub decides: group membership to profiles, sizes, images and caps."""
