"""What runs inside the cluster on its own account."""
