"""Loss, optimizer, state, one step and the loop around it."""
