"""Devices, their memory, processes and compiler; programs over replicas and devices."""
