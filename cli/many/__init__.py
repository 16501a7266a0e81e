"""Commands that make many pictures of many."""
