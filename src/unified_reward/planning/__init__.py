"""What a training will need, worked out on the meta device before anything is started: memory, tokens, hours."""
