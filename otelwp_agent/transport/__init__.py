"""Servers and clients: HTTP/1.1, gRPC, TLS, compression."""
