"""Files that the agent writes: private, never through another user's symbolic link, whole or not at all."""
