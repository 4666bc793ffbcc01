"""The status page: one static page that reads the board. Read-only, and it asks no other host."""
