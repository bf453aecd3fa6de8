"""A dense point cloud from the warps and poses of a finished job."""
