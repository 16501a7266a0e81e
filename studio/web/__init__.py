"""What a browser talks to: who may, the routes and their description, uploads, and the live connection."""
