"""The server side of HTTP/2 (RFC 9113), without I/O: frames, header blocks, streams and flow control."""
