"""Runs as things: what is known of one, its folder, its place in the queue, and the process that paints it."""
