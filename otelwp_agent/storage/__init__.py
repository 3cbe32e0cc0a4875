"""Open, write and replace the files of the agent: private, atomic, and not through links of other users."""
