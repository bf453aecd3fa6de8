"""Training of the mini model on synthetic pairs: losses, the loop, and how a network is judged."""
