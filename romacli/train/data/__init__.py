"""Where training pairs come from: rendered scenes, or photographs with depth and pose."""
