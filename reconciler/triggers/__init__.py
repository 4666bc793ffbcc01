"""What says "look again": commits of a local repository, webhooks. None of them says what changed; git does."""
