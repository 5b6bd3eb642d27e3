"""Many processes as one: the device mesh, finding the others, agreeing with them."""
