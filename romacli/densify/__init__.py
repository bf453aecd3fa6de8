"""A dense cloud from the warps and the poses of a finished job."""
