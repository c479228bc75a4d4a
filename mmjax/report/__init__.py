"""Reports of studies: statistics, tables, figures, and pages in Markdown, LaTeX and HTML."""
