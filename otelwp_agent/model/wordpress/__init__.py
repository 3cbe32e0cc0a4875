"""What the traces of WordPress mean, and what must not stand in them: routes, queries, code paths, redaction."""
