"""Helpers that tests share: waiting, processes, pools, networks, routines that workers import."""
