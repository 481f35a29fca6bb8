"""The report page: figures, tables and the page that holds them. Knows no stage; it is given what it shows."""
