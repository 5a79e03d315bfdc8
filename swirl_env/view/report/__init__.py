"""Reports over run folders: their figures, the statistics over seeds, tables, pictures and one HTML page."""
