"""How arrays are computed: pure functions without parameters."""
