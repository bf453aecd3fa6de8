"""Sources of training pairs: rendered scenes, or photographs with depth and pose."""
