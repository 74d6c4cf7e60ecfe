"""Folder trees in the cohorts' own layouts, with true headers and tables but no voxels: made to be indexed.

The cohorts that go through the whole pipeline are made elsewhere in braing3n.phantom.
"""
