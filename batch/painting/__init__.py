"""How the pictures of a batch are made: in this process, in several, or on other machines."""
