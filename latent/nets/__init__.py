"""Networks: linen modules without losses."""
