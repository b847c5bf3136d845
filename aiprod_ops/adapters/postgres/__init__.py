"""PostgreSQL through SQLAlchemy and psycopg2."""
