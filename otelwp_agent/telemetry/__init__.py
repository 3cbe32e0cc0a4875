"""What the agent tells of itself: metrics and logs."""
