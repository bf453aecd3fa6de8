"""Training of the mini model on synthetic pairs: losses and the loop."""
