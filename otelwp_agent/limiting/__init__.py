"""Rate limits, requests in progress, address lists and bans: decisions without I/O, with the time passed in."""
