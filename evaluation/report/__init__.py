"""The report: result tables, the survival figure and a page to browse transcripts."""
