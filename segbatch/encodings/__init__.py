"""How a mask is written down."""
