"""What is measured of masks."""
