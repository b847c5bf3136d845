"""PostgreSQL's log as figures: blocks of bytes in, a digest out. No file, no clock."""
