"""Content-addressed artifacts, Parquet tables, DuckDB views, atomic commits."""
