"""What lives in a notebook: panels, turns shown in cells, magics. A client of the API like any other."""
