"""A crowd of any size in virtual time over the real fold and merge, and policies side by side."""
