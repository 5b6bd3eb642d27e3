"""The tables of the paper: trainings, evaluations and what is made of them."""
