"""Balancers of the methods against imbalance: weights and schedules of unimodal losses."""
