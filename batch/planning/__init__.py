"""Which pictures a batch is to make: where contents come from, what they are called, and what is there already."""
