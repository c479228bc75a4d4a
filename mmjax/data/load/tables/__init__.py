"""Reads tables: CSV and Parquet files, DataFrames, and the rows that they hold."""
