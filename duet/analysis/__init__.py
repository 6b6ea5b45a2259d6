"""What a model needs of its visual tokens, measured: an oracle of which tokens matter."""
