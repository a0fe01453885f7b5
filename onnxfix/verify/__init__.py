"""How a result is believed: source and result driven in lock step."""
