"""Reports of studies: statistics, tables, figures and pages."""
