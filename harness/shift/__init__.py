"""What the shift suite is made of."""
