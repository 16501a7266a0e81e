"""Pictures of others: decoded and encoded anew in a process of its own, whose memory and time are limited."""
