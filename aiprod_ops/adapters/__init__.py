"""One client library a file: each implements a port and translates that library's errors once."""
