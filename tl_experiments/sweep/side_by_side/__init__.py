"""Any runs side by side, whether or not they are of one sweep."""
